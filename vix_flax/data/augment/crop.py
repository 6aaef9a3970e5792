"""Changes of place, each image by its own draw: crops and flips.

Every function keeps shape and dtype (uint8 is rounded) and is a pure function of (images, key).
"""

import math

import dm_pix
import jax
import jax.numpy as jnp

from vix_flax.data.augment.colour import as_dtype


def random_crop(images: jax.Array, key: jax.Array, padding: int) -> jax.Array:
    """A crop of the original size from each image padded with zeros, at its own random place."""
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    # Drawn at once: of dm_pix's draws, image by image, a training step is longer to compile.
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * padding + 1)

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    return jax.vmap(crop)(padded, corners)


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Each image mirrored left to right with probability ½."""
    keys = jax.random.split(key, len(images))
    return jax.vmap(dm_pix.random_flip_left_right)(keys, images)


def random_resized_crop(
    images: jax.Array,
    key: jax.Array,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> jax.Array:
    """A rectangle of each image, enlarged (bilinear, antialiased) to the size of the whole.

    Its share of the area is drawn from `scale`, its width over its height from `ratio`, evenly in
    the logarithm; of ten draws the first that fits is taken, else the whole image (torchvision's
    RandomResizedCrop; arXiv:1409.4842). Corners lie between pixels, not on them.
    """
    b, h, w, c = images.shape
    keys = jax.random.split(key, 3)
    area = h * w * jax.random.uniform(keys[0], (b, 10), minval=scale[0], maxval=scale[1])
    low, high = map(math.log, ratio)
    aspect = jnp.exp(jax.random.uniform(keys[1], (b, 10), minval=low, maxval=high))
    heights, widths = jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)
    fits = (heights <= h) & (widths <= w)
    first = jnp.argmax(fits, axis=1)[:, None]

    def chosen(sizes, whole):
        return jnp.where(fits.any(axis=1), jnp.take_along_axis(sizes, first, axis=1)[:, 0], whole)

    size = jnp.stack([chosen(heights, h), chosen(widths, w)], axis=1)
    room = jnp.array([h, w]) - size
    corner = jax.random.uniform(keys[2], (b, 2)) * room

    def enlarged(image, corner, size):
        zoom = jnp.array([h, w]) / size
        return jax.image.scale_and_translate(
            image, (h, w, c), (0, 1), zoom, -corner * zoom, "linear"
        )

    return as_dtype(jax.vmap(enlarged)(images.astype(jnp.float32), corner, size), images.dtype)
