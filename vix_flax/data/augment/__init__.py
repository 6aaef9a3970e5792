"""Augmentation on the device: pure functions of (images, key), jitted into the training step.

Images are `(b, h, w, c)`, pixels from 0 to 255; each image has its own draw.
"""

from vix_flax.data.augment.colour import color_jitter, gaussian_blur, grayscale
from vix_flax.data.augment.crop import random_crop, random_flip, random_resized_crop
from vix_flax.data.augment.pipeline import Augment, TwoViews, normalize

__all__ = [
    "Augment", "TwoViews", "color_jitter", "gaussian_blur", "grayscale", "normalize",
    "random_crop", "random_flip", "random_resized_crop",
]  # fmt: skip
