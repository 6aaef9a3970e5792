"""Augmentation: random by key alone, and only moves pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.data import Augment
from vix_flax.data.augment import normalize, random_crop, random_flip

RAW = dict(mean=(0.0,), std=(1 / 255,))  # normalisation that leaves pixels as they are


@pytest.fixture(scope="module")
def images():
    """Every pixel differs, none is black, no image is symmetric."""
    values = np.random.default_rng(0).permutation(np.arange(1, 241))
    return jnp.asarray(values.reshape(12, 5, 4, 1), jnp.uint8)


def test_without_a_key_images_are_only_normalised(images):
    augment = Augment(mean=(0.25,), std=(0.5,), crop_padding=2, flip=True)
    np.testing.assert_allclose(augment(images), (images / 255 - 0.25) / 0.5, rtol=1e-6)


def test_normalisation_is_of_each_channel():
    pixels = jnp.array([0, 255, 51], jnp.uint8).reshape(1, 1, 1, 3)
    normal = normalize(pixels, (0.5, 0.5, 0.2), (0.5, 0.25, 1.0))
    np.testing.assert_allclose(normal.ravel(), [-1, 2, 0], atol=1e-6)
    assert normal.dtype == jnp.float32


def test_augmentation_depends_on_its_key_alone(images):
    augment = Augment(**RAW, crop_padding=2, flip=True)
    one, same = (augment(images, jax.random.key(0)) for _ in range(2))
    other = augment(images, jax.random.key(1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.shape == images.shape
    assert one.dtype == jnp.float32


def test_a_key_without_crop_or_flip_changes_nothing(images):
    augment = Augment((0.3,), (0.4,))
    np.testing.assert_array_equal(augment(images, jax.random.key(0)), augment(images))


def test_equal_augmentations_hash_alike():
    assert Augment(**RAW, flip=True) == Augment(**RAW, flip=True)
    assert hash(Augment(**RAW, flip=True)) == hash(Augment(**RAW, flip=True))
    assert Augment(**RAW, flip=True) != Augment(**RAW)


@pytest.mark.parametrize("padding", [1, 3])
def test_a_crop_is_a_shifted_window_with_zeros_around(images, padding):
    cropped = np.asarray(random_crop(images, jax.random.key(0), padding))
    b, h, w, _ = images.shape
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(np.asarray(images), around)
    places = [(y, x) for y in range(2 * padding + 1) for x in range(2 * padding + 1)]
    found = [
        [(y, x) for y, x in places if (padded[i, y : y + h, x : x + w] == cropped[i]).all()]
        for i in range(b)
    ]
    assert all(found)
    assert len({tuple(where) for where in found}) > 1, "every image went to the same place"


def test_a_crop_reaches_every_corner():
    image = jnp.full((200, 1, 1, 1), 9, jnp.uint8)
    shares = np.asarray(random_crop(image, jax.random.key(0), 1)).mean() / 9
    assert 1 / 20 < shares < 1 / 5  # one place in nine shows the pixel


def test_a_flip_mirrors_some_images_and_leaves_others(images):
    flipped = np.asarray(random_flip(images, jax.random.key(0)))
    mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (flipped == np.asarray(images)).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert mirrored.any()
    assert kept.any()


def test_flip_and_crop_are_drawn_independently(images):
    both = Augment(**RAW, crop_padding=2, flip=True)(images, jax.random.key(0))
    crop = Augment(**RAW, crop_padding=2)(images, jax.random.key(0))
    np.testing.assert_allclose(np.sort(both, axis=2), np.sort(crop, axis=2), rtol=1e-6)
