"""A data set in memory: uint8 images, int32 labels, three splits, and batches of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Images `(n, h, w, c)` uint8 and labels `(n,)` int32."""

    images: np.ndarray
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


def train_batches(split: Split, batch_size: int, seed: int, epoch: int) -> Iterator[dict]:
    """One epoch of `{"image": uint8 (b, h, w, c), "label": int32 (b,)}` in an order that (seed,
    epoch) fixes; the incomplete last batch is left out (a whole split smaller than one is one).
    """
    batch_size = min(batch_size, len(split))
    order = np.random.default_rng((seed, epoch)).permutation(len(split))
    for start in range(0, len(split) - batch_size + 1, batch_size):
        chosen = order[start : start + batch_size]
        yield {"image": split.images[chosen], "label": split.labels[chosen]}


def eval_batches(split: Split, batch_size: int) -> Iterator[dict]:
    """Every image once, in order; the last batch is padded and `mask` (b,) float32 is 0 there."""
    batch_size = min(batch_size, len(split))
    for start in range(0, len(split), batch_size):
        image = split.images[start : start + batch_size]
        label = split.labels[start : start + batch_size]
        short = batch_size - len(label)
        yield {
            "image": np.pad(image, ((0, short), (0, 0), (0, 0), (0, 0))),
            "label": np.pad(label, (0, short)),
            "mask": np.pad(np.ones(len(label), np.float32), (0, short)),
        }
