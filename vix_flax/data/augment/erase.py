"""Random erasing: a rectangle of some images becomes noise."""

import math

import jax
import jax.numpy as jnp


def random_erase(
    images: jax.Array,
    key: jax.Array,
    rate: float = 0.25,
    area: tuple[float, float] = (0.02, 1 / 3),
    ratio: tuple[float, float] = (0.3, 3.3),
) -> jax.Array:
    """A rectangle of noise in each image with probability `rate` (arXiv:1708.04896).

    Its share of the area is drawn from `area`, its height over its width from `ratio`, evenly in
    the logarithm; of ten draws the first that fits is taken, else the image stays as it was, as
    in timm's mode "pixel". timm erases normalised images with normal noise; these are not
    normalised yet, and every pixel and channel gets its own level, all of 0 … 255 alike, as in
    the paper.

    Args:
        images: `(b, h, w, c)`, pixels from 0 to 255.
        key: of all draws.
        rate: share of the images to erase from.
        area: least and greatest share of an image's area, within (0, 1].
        ratio: least and greatest height over width, above 0.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: a field out of range.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate} must be in 0 … 1")
    if not 0 < area[0] <= area[1] <= 1:
        raise ValueError(f"area={area} must be two shares in 0 … 1, the lesser first")
    if not 0 < ratio[0] <= ratio[1] < math.inf:
        raise ValueError(f"ratio={ratio} must be two numbers above 0, the lesser first")
    rate_key, place_key, noise_key = jax.random.split(key, 3)
    chosen = jax.random.bernoulli(rate_key, rate, (len(images), 1, 1))
    erased = chosen & rectangles(images.shape, place_key, area, ratio)
    noise = random_levels(noise_key, images.shape).astype(images.dtype)
    return jnp.where(erased[..., None], noise, images)


def rectangles(
    shape: tuple[int, ...],
    key: jax.Array,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> jax.Array:
    """`(b, h, w)` bool: True in one rectangle of each image, if one of ten draws fits."""
    b, h, w, _ = shape
    keys = jax.random.split(key, 3)
    areas = h * w * jax.random.uniform(keys[0], (b, 10), minval=area[0], maxval=area[1])
    low, high = map(math.log, ratio)
    aspect = jnp.exp(jax.random.uniform(keys[1], (b, 10), minval=low, maxval=high))
    heights, widths = jnp.round(jnp.sqrt(areas * aspect)), jnp.round(jnp.sqrt(areas / aspect))
    fits = (heights < h) & (widths < w)
    first = jnp.argmax(fits, axis=1)[:, None]
    sizes = jnp.stack([heights, widths], axis=-1).astype(jnp.int32)
    size = jnp.take_along_axis(sizes, first[..., None], axis=1)[:, 0]
    corner = jax.random.randint(keys[2], (b, 2), 0, jnp.array([h, w]) - size + 1)

    def within(axis, n):
        place = jnp.arange(n) - corner[:, axis, None]
        return (place >= 0) & (place < size[:, axis, None])

    return fits.any(axis=1)[:, None, None] & within(0, h)[:, :, None] & within(1, w)[:, None, :]


def random_levels(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """uint8, all 256 levels alike."""
    # Four levels from each random word: jax.random.bits would spend a word on each.
    words = jax.random.bits(key, (-(-math.prod(shape) // 4),), jnp.uint32)
    levels = jax.lax.bitcast_convert_type(words, jnp.uint8).ravel()
    return levels[: math.prod(shape)].reshape(shape)
