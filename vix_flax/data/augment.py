"""From uint8 pixels to what a model sees, on the device: pure functions of (images, key)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Augment:
    """Random crop and flip (with a key), then normalisation: `(b, h, w, c)` uint8 -> float32.

    Hashable, so it can be a static argument of a jitted step.

    Attributes:
        mean, std: of each channel, for pixels in [0, 1].
        crop_padding: pixels of black around an image before a random crop of its size; 0 for none.
        flip: mirror left and right, every other image on average.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int = 0
    flip: bool = False

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Augmented if a key is given, else only normalised."""
        if key is not None:
            crop_key, flip_key = jax.random.split(key)
            if self.crop_padding:
                images = random_crop(images, crop_key, self.crop_padding)
            if self.flip:
                images = random_flip(images, flip_key)
        return normalize(images, self.mean, self.std)


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """uint8 `(b, h, w, c)` -> float32 with mean 0 and standard deviation 1 in each channel."""
    return (images.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


def random_crop(images: jax.Array, key: jax.Array, padding: int) -> jax.Array:
    """A crop of the original size from each image padded with zeros, at its own random place."""
    b, h, w, c = images.shape
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    corners = jax.random.randint(key, (b, 2), 0, 2 * padding + 1)

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))

    return jax.vmap(crop)(padded, corners)


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Each image mirrored left to right with probability ½."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)
