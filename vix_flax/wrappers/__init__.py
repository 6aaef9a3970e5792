"""What uses a backbone by its verbs and leaves its parameters as they are."""

from vix_flax.wrappers.byol import BYOL, update_target
from vix_flax.wrappers.distill import (
    DistillableEfficientViT,
    DistillableT2TViT,
    DistillableViT,
    DistillWrapper,
)
from vix_flax.wrappers.mpp import MPP, colour_labels, mask_patches
from vix_flax.wrappers.recorder import Recorder
from vix_flax.wrappers.swap import swap_attention

__all__ = [
    "BYOL",
    "MPP",
    "DistillWrapper",
    "DistillableEfficientViT",
    "DistillableT2TViT",
    "DistillableViT",
    "Recorder",
    "colour_labels",
    "mask_patches",
    "swap_attention",
    "update_target",
]
