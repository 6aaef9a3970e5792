"""Augmentation: random by key alone, and only moves pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.data import Augment, Mix, TwoViews
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


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
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


@pytest.mark.parametrize(
    "fields",
    [
        dict(color_jitter=0.5), dict(policy="trivial"),
        *(
            pytest.param(fields, marks=pytest.mark.slow)
            for fields in (dict(min_crop=0.3), dict(policy="rand"), dict(erase=1.0))
        ),
    ],
)  # fmt: skip
def test_every_field_changes_images_by_their_key(fields):
    pixels = np.random.default_rng(3).integers(0, 256, (16, 12, 12, 3))
    images = jnp.asarray(pixels, jnp.uint8)
    augment = Augment((0.0,) * 3, (1 / 255,) * 3, **fields)
    augmented = jax.jit(augment.augmented)
    one, same, other = (augmented(images, jax.random.key(seed)) for seed in (0, 0, 1))
    assert (one.shape, one.dtype) == (images.shape, jnp.uint8)
    np.testing.assert_array_equal(one, same)
    assert np.mean((one != images).any(axis=(1, 2, 3))) > 0.5
    assert np.any(one != other)
    # Compiled and not, a half may round either way.
    np.testing.assert_allclose(augment(images, jax.random.key(0)), one, atol=1.01)
    np.testing.assert_allclose(augment(images), images, rtol=1e-6)


def test_the_strength_of_a_policy_matters():
    pixels = np.random.default_rng(3).integers(0, 256, (64, 12, 12, 3))
    images = jnp.asarray(pixels, jnp.uint8)

    def change(magnitude):
        augment = Augment((0.0,) * 3, (1.0,) * 3, policy="rand", policy_magnitude=magnitude)
        out = augment.augmented(images, jax.random.key(0))
        return np.abs(np.asarray(out, int) - pixels).mean()

    assert change(2) < change(28)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_images_have_the_labels_of_both(mixup, cutmix):
    labels = jnp.array([0, 1, 2, 3])
    # Normalised images, below 0 and above 1: each has its own level.
    images = jnp.broadcast_to(jnp.array([-2.0, -1.0, 1.0, 2.0])[:, None, None, None], (4, 8, 8, 1))
    mixed, targets = jax.jit(Mix(5, mixup, cutmix))(images, labels, jax.random.key(4))
    assert targets.shape == (4, 5)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    share = targets[0, 0]
    assert 0 < share < 1
    np.testing.assert_allclose(targets[0], [share, 0, 0, 1 - share, 0], atol=1e-6)
    means = share * images[:, 0, 0, 0] + (1 - share) * images[::-1, 0, 0, 0]
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), means, atol=1e-5)
