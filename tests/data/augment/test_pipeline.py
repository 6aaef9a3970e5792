"""Augmentation: random by key alone, and only moves pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.data import Augment, TwoViews
from vix_flax.data.augment import normalize

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


def test_flip_and_crop_are_drawn_independently(images):
    both = Augment(**RAW, crop_padding=2, flip=True)(images, jax.random.key(0))
    crop = Augment(**RAW, crop_padding=2)(images, jax.random.key(0))
    np.testing.assert_allclose(np.sort(both, axis=2), np.sort(crop, axis=2), rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_two_views_differ_and_repeat_without_a_key(channels):
    pixels = np.random.default_rng(1).integers(0, 256, (6, 8, 6, channels))
    views_of = jax.jit(TwoViews((0.3,) * channels, (0.4,) * channels))
    images = jnp.asarray(pixels, jnp.uint8)
    views = views_of(images, jax.random.key(1))
    assert views.shape == (2, *images.shape)
    assert views.dtype == jnp.float32
    assert np.isfinite(views).all()
    assert (np.abs(views[0] - views[1]).max(axis=(1, 2, 3)) > 0.1).all()
    np.testing.assert_array_equal(views_of(images), views_of(images))
    assert np.any(views_of(images) != views)
