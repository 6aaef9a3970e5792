"""Colours change as torchvision changes them, each image by its own draw."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.data.augment import color_jitter, gaussian_blur, grayscale
from vix_flax.data.augment.colour import sometimes

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(60, 190, (40, 4, 5, 3)).astype(np.float32)
GREY = IMAGES @ np.array([0.299, 0.587, 0.114], np.float32)


def factors(changed, images, around):
    """The factor that took each pixel's distance from `around` to what it is now."""
    return (changed - around) / np.where(np.abs(images - around) < 5, np.nan, images - around)


@pytest.mark.parametrize(
    ("field", "around"),
    [
        ("brightness", np.zeros_like(IMAGES)),
        ("contrast", np.broadcast_to(GREY.mean(axis=(1, 2))[:, None, None, None], IMAGES.shape)),
        ("saturation", np.broadcast_to(GREY[..., None], IMAGES.shape)),
    ],
)
def test_jitter_multiplies_by_one_factor_an_image(field, around):
    out = np.asarray(color_jitter(jnp.asarray(IMAGES), KEY, **{field: 0.2}))
    found = factors(out, IMAGES, around).reshape(40, -1)
    np.testing.assert_allclose(np.nanmax(found, 1), np.nanmin(found, 1), rtol=2e-3)
    means = np.nanmean(found, axis=1)
    assert 0.8 <= means.min() < 0.87
    assert 1.13 < means.max() <= 1.201


def test_hue_turns_by_one_angle_an_image():
    out = np.asarray(color_jitter(jnp.asarray(IMAGES), KEY, hue=0.1)) / 255
    hsv = lambda images: np.array(
        [colorsys.rgb_to_hsv(*pixel) for pixel in images.reshape(-1, 3).tolist()]
    ).reshape(40, -1, 3)
    before, after = hsv(IMAGES / 255), hsv(out)
    np.testing.assert_allclose(after[..., 1:], before[..., 1:], atol=1e-3)
    turns = (after[..., 0] - before[..., 0] + 0.5) % 1 - 0.5
    np.testing.assert_allclose(turns, np.broadcast_to(turns[:, :1], turns.shape), atol=2e-3)
    assert np.abs(turns).max() <= 0.102
    assert turns.max() > 0.07
    assert turns.min() < -0.07


def test_one_channel_has_no_colour():
    grey = jnp.asarray(IMAGES[..., :1])
    np.testing.assert_array_equal(color_jitter(grey, KEY, saturation=0.5, hue=0.2), grey)
    np.testing.assert_array_equal(grayscale(grey), grey)


def test_greyscale_is_brightness_in_every_channel():
    np.testing.assert_allclose(
        grayscale(jnp.asarray(IMAGES)), np.repeat(GREY[..., None], 3, axis=-1), rtol=1e-5
    )


def test_a_blur_is_a_gaussian_of_nine_pixels():
    dot = np.zeros((30, 5, 5, 1), np.float32)
    dot[:, 2, 2] = 200
    out = np.asarray(gaussian_blur(jnp.asarray(dot), KEY, (1.0, 2.0)))[..., 0]
    np.testing.assert_allclose(out.sum(axis=(1, 2)), 200, rtol=1e-5)
    side = out[:, 2, 1] / out[:, 2, 2]
    sigma = np.sqrt(-0.5 / np.log(side))
    assert 1 <= sigma.min() < 1.2
    assert 1.8 < sigma.max() <= 2
    np.testing.assert_allclose(out[:, 1, 1] / out[:, 2, 2], side**2, rtol=1e-4)
    constant = jnp.full((2, 4, 4, 3), 77, jnp.uint8)
    np.testing.assert_array_equal(gaussian_blur(constant, KEY, (1.0, 2.0)), constant)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, key: color_jitter(x, key, 0.8, 0.8, 0.8, 0.2),
        lambda x, key: gaussian_blur(x, key, (1.0, 2.0)),
        lambda x, key: grayscale(x),
    ],
)
def test_shape_dtype_and_range_are_kept(change):
    extreme = jnp.asarray(np.random.default_rng(2).choice([0, 255], (9, 4, 4, 3)), jnp.uint8)
    out = jax.jit(change)(extreme, KEY)
    assert (out.shape, out.dtype) == (extreme.shape, jnp.uint8)
    floats = change(extreme.astype(jnp.float32), KEY)
    assert floats.dtype == jnp.float32
    # The hue of a pixel that is nearly grey may turn with a last digit: not every pixel agrees.
    assert (np.abs(out - np.asarray(floats)) <= 1).mean() > 0.8


def test_sometimes_is_a_share_of_whole_images():
    images, changed = jnp.zeros((2000, 2, 2, 1)), jnp.ones((2000, 2, 2, 1))
    out = np.asarray(sometimes(KEY, 0.3, changed, images)).reshape(2000, -1)
    assert (out.min(axis=1) == out.max(axis=1)).all()
    assert 0.26 < out.mean() < 0.34
