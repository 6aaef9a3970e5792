"""A data set: uint8 images, int32 labels, three splits."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Images `(n, h, w, c)` uint8, an array or decoded on demand, and labels `(n,)` int32."""

    images: Any
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test splits with class names, and the mean and standard deviation
    of each channel for pixels in [0, 1].

    Raises:
        ValueError: images that are not uint8 `(n, h, w, c)`, a label for which there is no class,
            or an empty split.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    val: Split
    test: Split

    def __post_init__(self):
        for name in ("train", "val", "test"):
            split = getattr(self, name)
            if split.images.dtype != np.uint8 or split.images.ndim != 4:
                raise ValueError(
                    f"{self.name}/{name}: images must be uint8 (n, h, w, c); got "
                    f"{split.images.dtype} {split.images.shape}"
                )
            if not len(split) or len(split.images) != len(split):
                raise ValueError(
                    f"{self.name}/{name}: {len(split.images)} images for {len(split)} labels"
                )
            low, high = split.labels.min(), split.labels.max()
            if low < 0 or high >= len(self.classes):
                raise ValueError(
                    f"{self.name}/{name}: labels run from {low} to {high}, but there are "
                    f"{len(self.classes)} classes (0 to {len(self.classes) - 1})"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return self.train.images.shape[1:]
