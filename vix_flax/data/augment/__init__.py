"""Augmentation on the device: pure functions of (images, key), jitted into the training step.

Images are `(b, h, w, c)`, pixels from 0 to 255; each image has its own draw.
"""

from vix_flax.data.augment.colour import color_jitter, gaussian_blur, grayscale
from vix_flax.data.augment.crop import random_crop, random_flip, random_resized_crop
from vix_flax.data.augment.erase import random_erase
from vix_flax.data.augment.mix import cutmix, mixup, mixup_or_cutmix
from vix_flax.data.augment.pipeline import Augment, Mix, TwoViews, normalize
from vix_flax.data.augment.policy import rand_augment, trivial_augment

__all__ = [
    "Augment", "Mix", "TwoViews", "color_jitter", "cutmix", "gaussian_blur", "grayscale", "mixup",
    "mixup_or_cutmix", "normalize", "rand_augment", "random_crop", "random_erase", "random_flip",
    "random_resized_crop", "trivial_augment",
]  # fmt: skip
