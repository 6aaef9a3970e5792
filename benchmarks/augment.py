"""Plain JAX beside dm-pix, where both do the same: on batches, jitted, taking turns.

    python benchmarks/augment.py

Prints images/s of both (batch 512 of 32 × 32) and dm-pix's time over the plain one's. The library
takes dm-pix's function where that is at most 2 and means what the recipes mean: crop, flip, hue.
"""

import statistics
import time

import dm_pix as pix
import jax
import jax.numpy as jnp

from vix_flax.data.augment import colour

BATCH, PADDING = 512, 4
SIGMA = (1.0, 2.0)


def plain_crop(images, key):
    b, h, w, c = images.shape
    padded = jnp.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    corners = jax.random.randint(key, (b, 2), 0, 2 * PADDING + 1)

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))

    return jax.vmap(crop)(padded, corners)


def plain_flip(images, key):
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def each(function):
    """dm-pix's functions take one image and one key."""
    return lambda images, key: jax.vmap(function)(images, jax.random.split(key, len(images)))


def pix_crop(image, key):
    size = image.shape[0] + 2 * PADDING
    return pix.random_crop(key, pix.pad_to_size(image, size, size), image.shape)


def pix_blur(image, key):
    sigma = jax.random.uniform(key, minval=SIGMA[0], maxval=SIGMA[1])
    blurred = pix.gaussian_blur(image.astype(jnp.float32), sigma, 3)
    return colour.as_dtype(blurred, image.dtype)


PAIRS = {
    "padded crop": (plain_crop, each(pix_crop)),
    "flip": (plain_flip, each(lambda image, key: pix.random_flip_left_right(key, image))),
    "3 × 3 blur": (lambda images, key: colour.gaussian_blur(images, key, SIGMA), each(pix_blur)),
}


def main():
    images = jax.random.randint(jax.random.key(0), (BATCH, 32, 32, 3), 0, 256).astype(jnp.uint8)
    for name, pair in PAIRS.items():
        sides = [jax.jit(side) for side in pair]
        seconds = [[], []]
        for i in range(32):
            key = jax.random.key(i)
            for side, taken in zip(sides, seconds, strict=True):
                start = time.perf_counter()
                jax.block_until_ready(side(images, key))
                taken.append(time.perf_counter() - start)
        ours, theirs = (statistics.median(taken[2:]) for taken in seconds)
        print(
            f"{name:12} plain {BATCH / ours:9,.0f}  dm-pix {BATCH / theirs:9,.0f} images/s"
            f"  {theirs / ours:6.2f}"
        )


if __name__ == "__main__":
    main()
