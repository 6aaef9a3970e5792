"""From uint8 pixels to what a model sees: what is done to a batch, as one hashable value."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vix_flax.data.augment.colour import color_jitter, gaussian_blur, grayscale, sometimes
from vix_flax.data.augment.crop import random_crop, random_flip, random_resized_crop
from vix_flax.data.augment.erase import random_erase
from vix_flax.data.augment.mix import mixup_or_cutmix
from vix_flax.data.augment.policy import rand_augment, trivial_augment


@dataclass(frozen=True)
class Augment:
    """What recipes do to images, in this order, with a key; then normalisation: `(b, h, w, c)`
    uint8 -> float32.

    Hashable, so it can be a static argument of a jitted step.

    Attributes:
        mean, std: of each channel, for pixels in [0, 1].
        crop_padding: pixels of black around an image before a random crop of its size; 0: none.
        min_crop: least share of the area of a random rectangle that is enlarged; None: none.
        flip: mirror left and right, every other image on average.
        color_jitter: spread of brightness, contrast and saturation; 0: none.
        policy: "rand" (RandAugment) or "trivial" (TrivialAugment); None: none.
        policy_magnitude: strength of RandAugment, 0 to 30.
        erase: share of the images in which a rectangle becomes noise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int = 0
    flip: bool = False
    min_crop: float | None = None
    color_jitter: float = 0.0
    policy: str | None = None
    policy_magnitude: int = 9
    erase: float = 0.0

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Augmented if a key is given, else only normalised."""
        images = images if key is None else self.augmented(images, key)
        return normalize(images, self.mean, self.std)

    def augmented(self, images: jax.Array, key: jax.Array) -> jax.Array:
        """Augmented and not yet normalised; dtype and shape are kept."""
        keys = jax.random.split(key, 6)
        crop_key, flip_key, enlarge_key, jitter_key, policy_key, erase_key = keys
        if self.crop_padding:
            images = random_crop(images, crop_key, self.crop_padding)
        if self.min_crop is not None:
            images = random_resized_crop(images, enlarge_key, (self.min_crop, 1.0))
        if self.flip:
            images = random_flip(images, flip_key)
        if self.color_jitter:
            images = color_jitter(images, jitter_key, *[self.color_jitter] * 3)
        if self.policy == "rand":
            images = rand_augment(images, policy_key, magnitude=self.policy_magnitude)
        elif self.policy == "trivial":
            images = trivial_augment(images, policy_key)
        if self.erase:
            images = random_erase(images, erase_key, self.erase)
        return images


@dataclass(frozen=True)
class Mix:
    """Two images in one, with their labels: `(b, h, w, c)` float, `(b,)` int -> the same, and
    targets `(b, num_classes)`; see `mixup_or_cutmix`.

    Attributes:
        num_classes: of the labels.
        mixup, cutmix: alpha of each; 0: not that one.
    """

    num_classes: int
    mixup: float = 0.0
    cutmix: float = 0.0

    def __call__(
        self, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mixed images and soft targets."""
        targets = jax.nn.one_hot(labels, self.num_classes)
        return mixup_or_cutmix(images, targets, key, self.mixup, self.cutmix)


@dataclass(frozen=True)
class TwoViews:
    """Two views of every image, as byol-pytorch draws them: `(b, h, w, c)` uint8 -> `(2, b, h, w,
    c)` float32 (arXiv:2006.07733).

    Colour jitter for 30 % of the images, grey 20 %, mirrored 50 %, blurred 20 %, a random rectangle
    enlarged; then normalised by the data set's own statistics, so that what is learned fits
    training with labels.

    Attributes:
        mean, std: of each channel, for pixels in [0, 1].
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Without a key the draws are the same every time, for validation."""
        keys = jax.random.split(jax.random.key(0) if key is None else key)
        views = jnp.stack([self.view(images, view_key) for view_key in keys])
        return normalize(views, self.mean, self.std)

    def view(self, images: jax.Array, key: jax.Array) -> jax.Array:
        """One view, uint8, not yet normalised."""
        keys = jax.random.split(key, 7)
        jittered = color_jitter(images, keys[0], 0.8, 0.8, 0.8, 0.2)
        images = sometimes(keys[1], 0.3, jittered, images)
        images = sometimes(keys[2], 0.2, grayscale(images), images)
        images = random_flip(images, keys[3])
        images = sometimes(keys[4], 0.2, gaussian_blur(images, keys[5], (1.0, 2.0)), images)
        return random_resized_crop(images, keys[6])


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """uint8 `(b, h, w, c)` -> float32 with mean 0 and standard deviation 1 in each channel."""
    return (images.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)
