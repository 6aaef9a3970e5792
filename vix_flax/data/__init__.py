"""Data sets by name, batches of them, and augmentation on the device. Knows no model."""

import inspect
from typing import Any

from vix_flax.data.augment import Augment, Mix, TwoViews
from vix_flax.data.batches import LOADERS, TrainBatches, choose_loader, eval_batches
from vix_flax.data.cifar import load_cifar10, load_cifar100
from vix_flax.data.dataset import Dataset, Split
from vix_flax.data.digits import load_digits
from vix_flax.data.folder import load_folder
from vix_flax.data.image_file import read_image
from vix_flax.data.tiny_imagenet import load_tiny_imagenet
from vix_flax.suggest import did_you_mean

DATASETS = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "tiny_imagenet": load_tiny_imagenet,
    "folder": load_folder,
}


def load_dataset(
    name: str, data_dir: str | None = None, stream: bool | None = None, **options: Any
) -> Dataset:
    """The data set of that name, from `data_dir` where it is not part of the package.

    Args:
        name: in `DATASETS`.
        data_dir: where its files are.
        stream: decode image files when they are needed instead of now; None: if memory is short.
        options: what its loader takes beside; None stands for the loader's default.

    Raises:
        ValueError: unknown name or option, or data that is missing or damaged.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}" + did_you_mean(name, DATASETS))
    given = {option: value for option, value in options.items() if value is not None}
    known = inspect.signature(DATASETS[name]).parameters
    for option, value in given.items():
        if option not in known:
            raise ValueError(f"{option}={value!r}: {name} has no use for it; leave it out")
    if "stream" in known:
        given["stream"] = stream
    return DATASETS[name](data_dir, **given)


__all__ = [
    "DATASETS", "LOADERS", "Augment", "Dataset", "Mix", "Split", "TrainBatches", "TwoViews",
    "choose_loader", "eval_batches", "load_dataset", "read_image",
]  # fmt: skip
