"""`cifar10` and `cifar100` from the official archives: python or binary, packed or unpacked.

Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images. Files are found in the
folder given or one level below, under the names that the archives have.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vix_flax.data.dataset import Dataset, Split
from vix_flax.data.decode import decode_splits
from vix_flax.data.files import find_files
from vix_flax.data.prepared import default_data_dir, find_prepared, nothing_there, read_prepared

SHAPE = (32, 32, 3)
PIXELS = 3 * 32 * 32
URL = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Layout:
    """Where one version of a set keeps what.

    Attributes:
        folder, archive: their names.
        train, test: names of the files, in order.
        label: of a pickle's labels, or which of a binary record's leading bytes is the label.
        label_bytes: leading bytes of a binary record; 0: pickles.
        class_names: the file that names the classes, if these are read.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    label: bytes | int
    label_bytes: int = 0
    class_names: str | None = None


BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
CIFAR10 = (
    Layout("cifar-10-batches-py", "cifar-10-python.tar.gz", BATCHES, "test_batch", b"labels"),
    Layout(
        "cifar-10-batches-bin", "cifar-10-binary.tar.gz", tuple(f"{b}.bin" for b in BATCHES),
        "test_batch.bin", 0, 1,
    ),
)  # fmt: skip
CIFAR100 = (
    Layout(
        "cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", b"fine_labels",
        class_names="meta",
    ),
    Layout(
        "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin", 1, 2,
        class_names="fine_label_names.txt",
    ),
)  # fmt: skip
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def load_cifar10(data_dir: str | None = None) -> Dataset:
    """45,000 training, 5,000 validation (the last training images) and 10,000 test images.

    Args:
        data_dir: a folder with `cifar-10-python.tar.gz`, `cifar-10-binary.tar.gz`,
            `cifar-10-batches-py/` or `cifar-10-batches-bin/`, or one of these itself; or with the
            set as TFDS has prepared it (array_record). None: where TFDS keeps its sets.

    Raises:
        ValueError: nothing of the kind there, or a file that is missing, truncated or damaged.
    """
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return _load("cifar10", "CIFAR-10", CIFAR10, data_dir, CLASSES, mean, std)


def load_cifar100(data_dir: str | None = None) -> Dataset:
    """45,000 training, 5,000 validation and 10,000 test images, with the 100 fine classes.

    As `load_cifar10`, from `cifar-100-python` or `cifar-100-binary`.
    """
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return _load("cifar100", "CIFAR-100", CIFAR100, data_dir, None, mean, std)


def _load(name, title, layouts, data_dir, classes, mean, std) -> Dataset:
    place = data_dir or default_data_dir()
    prepared = find_prepared(place, (f"vix_{name}", name))
    if prepared:
        files, classes, named = read_prepared(prepared, ("train", "test"))
        splits = decode_splits(files, named, SHAPE, stream=False)
    else:
        found = find_official(place, layouts, classes)
        if found is None:
            expected = " or ".join(f"{layout.archive} or {layout.folder}/" for layout in layouts)
            raise ValueError(nothing_there(name, title, data_dir, expected, URL))
        classes, splits = found
    train = splits["train"]
    cut = len(train) - max(1, len(train) // 10)
    val = Split(train.images[cut:], train.labels[cut:])
    train = Split(train.images[:cut], train.labels[:cut])
    return Dataset(name, tuple(classes), mean, std, train, val, splits["test"])


def find_official(
    folder: str, layouts: tuple[Layout, ...], classes: tuple[str, ...] | None = None
) -> tuple[tuple[str, ...], dict[str, Split]] | None:
    """Class names and official splits `train` and `test`, from whichever version is in `folder`.

    Args:
        folder: as in `load_cifar10`.
        layouts: the versions to look for, in this order.
        classes: their names; None: as the version says.

    Raises:
        ValueError: a file that is missing, truncated or damaged.
    """
    for layout in layouts:
        files = find_files(folder, layout.folder, layout.archive)
        if files is None:
            continue
        classes = classes or _class_names(files.read, layout)
        named = {"train": layout.train, "test": (layout.test,)}
        return classes, {
            split: _decode_all(files.read, names, layout, len(classes))
            for split, names in named.items()
        }
    return None


def _decode_all(read, names, layout, classes) -> Split:
    """One split of several files, in memory once: each file is copied to its place."""
    images = labels = None
    for i, name in enumerate(names):
        some, numbers = _decode(read, name, layout, classes)
        if images is None:
            count = len(numbers)
            images = np.empty((count * len(names), *SHAPE), np.uint8)
            labels = np.empty(len(images), np.int32)
        if len(numbers) != count:
            raise ValueError(
                f"{names[0]} has {count} images, {name} {len(numbers)}: one of them is truncated"
            )
        images[i * count : (i + 1) * count] = some
        labels[i * count : (i + 1) * count] = numbers
    return Split(images, labels)


def _class_names(read: Callable[[str], bytes], layout: Layout) -> tuple[str, ...]:
    if layout.label_bytes:
        names = read(layout.class_names).decode().split()
    else:
        (stored,) = _unpickled(read, layout.class_names, b"fine_label_names")
        names = [name.decode() for name in stored.tolist()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"{layout.class_names} does not name the classes: {names}")
    return tuple(names)


def _decode(read, name, layout, classes) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32, 3) uint8 and labels (n,) int32 of one file."""
    if layout.label_bytes:
        raw, length = np.frombuffer(read(name), np.uint8), PIXELS + layout.label_bytes
        if not raw.size or raw.size % length:
            raise ValueError(f"{name} is truncated: {raw.size} bytes are no multiple of {length}")
        rows = raw.reshape(-1, length)
        return _images(rows[:, layout.label_bytes :]), rows[:, layout.label].astype(np.int32)
    return _from_pickle(read, name, layout.label, classes)


def _from_pickle(read, name, key=b"labels", classes=10) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = _unpickled(read, name, b"data", key)
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
        what = f"data {pixels.dtype} {pixels.shape} for {len(labels)} labels"
    elif labels.dtype.kind not in "iu" or not np.all((labels >= 0) & (labels < classes)):
        what = f"labels are not all integers from 0 to {classes - 1}"
    else:
        return _images(pixels), labels.astype(np.int32)
    raise ValueError(f"{name} is truncated or no CIFAR batch ({what})")


def _unpickled(read, name, *keys):
    """The arrays of these keys."""
    try:
        content = _ArraysOnly(io.BytesIO(read(name)), encoding="bytes").load()
        return [np.asarray(content[key]) for key in keys]
    except Exception as error:  # a damaged pickle raises almost anything
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} is truncated or no CIFAR batch ({reason})") from None


class _ArraysOnly(pickle.Unpickler):
    """A pickle may run any code when it is loaded; this one may build numpy arrays."""

    def find_class(self, module, name):
        if name in ("_reconstruct", "ndarray", "dtype", "_frombuffer") and module.startswith(
            "numpy"
        ):
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _images(pixels: np.ndarray) -> np.ndarray:
    """(n, 3072), channel by channel -> (n, 32, 32, 3), a view."""
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
