"""Changes of colour, each image by its own draw: jitter, greyscale, blur.

Pixels run from 0 to 255; every function keeps shape and dtype (uint8 is rounded at its end) and is
a pure function of (images, key). Jitter is torchvision's, in one order: brightness, contrast,
saturation, hue.
"""

import jax
import jax.numpy as jnp
from dm_pix import adjust_hue

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow and torchvision weigh red, green, blue


def as_dtype(images: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Float pixels as `dtype`: clipped to 0 … 255, and rounded for integers."""
    images = jnp.clip(images, 0, 255)
    return (jnp.round(images) if jnp.issubdtype(dtype, jnp.integer) else images).astype(dtype)


def luma(images: jax.Array) -> jax.Array:
    """Brightness `(b, h, w, 1)` float32 of images `(b, h, w, c)`; grey ones have it already."""
    images = images.astype(jnp.float32)
    return images if images.shape[-1] == 1 else images @ jnp.asarray(LUMA)[:, None]


def color_jitter(
    images: jax.Array,
    key: jax.Array,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
) -> jax.Array:
    """Brightness, contrast and saturation times 1 ± their field, hue turned by ± `hue` circles.

    Images of one channel have neither saturation nor hue.
    """
    keys = jax.random.split(key, 4)
    shape = (len(images), 1, 1, 1)

    def factor(key, spread):
        return jax.random.uniform(key, shape, minval=max(0, 1 - spread), maxval=1 + spread)

    out = images.astype(jnp.float32)
    if brightness:
        out = jnp.clip(out * factor(keys[0], brightness), 0, 255)
    if contrast:
        mean = luma(out).mean(axis=(1, 2, 3), keepdims=True)
        out = jnp.clip(mean + (out - mean) * factor(keys[1], contrast), 0, 255)
    if images.shape[-1] == 3:
        if saturation:
            grey = luma(out)
            out = jnp.clip(grey + (out - grey) * factor(keys[2], saturation), 0, 255)
        if hue:
            turn = jax.random.uniform(keys[3], shape[:3], minval=-hue, maxval=hue)
            out = 255 * adjust_hue(out / 255, turn)
    return as_dtype(out, images.dtype)


def grayscale(images: jax.Array) -> jax.Array:
    """Every channel the brightness."""
    return as_dtype(jnp.broadcast_to(luma(images), images.shape), images.dtype)


def gaussian_blur(images: jax.Array, key: jax.Array, sigma: tuple[float, float]) -> jax.Array:
    """A 3 × 3 Gaussian of a width in `sigma` pixels for each image; edges are mirrored."""
    low, high = sigma
    drawn = jax.random.uniform(key, (len(images), 1, 1, 1), minval=low, maxval=high)
    side = jnp.exp(-0.5 / drawn**2)
    out = images.astype(jnp.float32)
    for axis in (1, 2):
        width = [(0, 0)] * 4
        width[axis] = (1, 1)
        padded = jnp.pad(out, width, mode="reflect")
        before, here, after = (
            jax.lax.slice_in_dim(padded, i, i + out.shape[axis], axis=axis) for i in range(3)
        )
        out = (here + side * (before + after)) / (1 + 2 * side)
    return as_dtype(out, images.dtype)


def sometimes(key: jax.Array, rate: float, changed: jax.Array, images: jax.Array) -> jax.Array:
    """Each image changed with probability `rate`, else as it was."""
    chosen = jax.random.bernoulli(key, rate, (len(images), 1, 1, 1))
    return jnp.where(chosen, changed, images)
