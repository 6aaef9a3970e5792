"""Crops and flips only move or enlarge pixels, each image by its own draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.data.augment import random_crop, random_flip, random_resized_crop


@pytest.fixture(scope="module")
def images():
    """Every pixel differs, none is black, no image is symmetric."""
    values = np.random.default_rng(0).permutation(np.arange(1, 241))
    return jnp.asarray(values.reshape(12, 5, 4, 1), jnp.uint8)


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


RAMP = jnp.broadcast_to(jnp.arange(32.0)[:, None, None] * 8, (300, 32, 24, 1))


@jax.jit
def enlarged(key, images=RAMP):
    return random_resized_crop(images, key)


def test_an_enlarged_rectangle_is_a_stretch_of_a_ramp():
    """On a ramp a linear resize is exact: a line, whose slope is the share of the height."""
    out = np.asarray(enlarged(jax.random.key(0)))[..., 0]
    assert np.ptp(out, axis=2).max() < 1e-3  # nothing varies along rows
    inner = out[:, 4:-4, 0]
    slopes = np.diff(inner, axis=1)
    assert np.ptp(slopes, axis=1).max() < 1e-2
    shares = slopes.mean(axis=1) / 8
    assert 0.2 < shares.min() < 0.4
    assert 0.9 < shares.max() <= 1.001
    middles = inner.mean(axis=1)
    assert middles.std() > 8  # it is not always the middle


def test_the_area_is_drawn_from_scale():
    key, whole = jax.random.key(1), (1.0, 1.0)
    square = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)), jnp.uint8)
    np.testing.assert_array_equal(random_resized_crop(square, key, whole, (1.0, 1.0)), square)
    # What never fits is taken whole.
    np.testing.assert_array_equal(random_resized_crop(square, key, whole, (2.0, 2.1)), square)


def test_an_enlarged_rectangle_keeps_dtype_and_follows_its_key(images):
    one, same, other = (random_resized_crop(images, jax.random.key(s)) for s in (0, 0, 1))
    assert (one.shape, one.dtype) == (images.shape, images.dtype)
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any(axis=(1, 2, 3)).all()
