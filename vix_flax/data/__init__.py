"""Data sets by name, as uint8 arrays in memory, and augmentation on the device. Knows no model."""

from vix_flax.data.augment import Augment, TwoViews
from vix_flax.data.cifar import load_cifar10
from vix_flax.data.dataset import Dataset, Split, eval_batches, train_batches
from vix_flax.data.digits import load_digits
from vix_flax.data.image_file import read_image
from vix_flax.suggest import did_you_mean

DATASETS = {"digits": load_digits, "cifar10": load_cifar10}


def load_dataset(name: str, data_dir: str | None = None) -> Dataset:
    """The data set of that name, from `data_dir` where it is not part of the package.

    Raises:
        ValueError: unknown name, or data that is missing or damaged.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}" + did_you_mean(name, DATASETS))
    return DATASETS[name](data_dir)


__all__ = [
    "DATASETS", "Augment", "Dataset", "Split", "TwoViews", "eval_batches", "load_dataset",
    "read_image", "train_batches",
]  # fmt: skip
