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
from vix_flax.data.files import find_files

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
            `cifar-10-batches-py/` or `cifar-10-batches-bin/`, or one of these itself.

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
    expected = " or ".join(f"{layout.archive} or {layout.folder}/" for layout in layouts)
    if data_dir is None:
        raise ValueError(f"{name} needs --data-dir: the folder that holds {expected} (from {URL})")
    for layout in layouts:
        files = find_files(data_dir, layout.folder, layout.archive)
        if files is None:
            continue
        classes = classes or _class_names(files.read, layout)
        parts = [_decode(files.read, file, layout, len(classes)) for file in layout.train]
        counts = [len(labels) for _, labels in parts]
        if len(set(counts)) > 1:
            raise ValueError(f"training batches of {counts} images: one of them is truncated")
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        test = Split(*_decode(files.read, layout.test, layout, len(classes)))
        cut = len(labels) - max(1, len(labels) // 10)
        train, val = Split(images[:cut], labels[:cut]), Split(images[cut:], labels[cut:])
        return Dataset(name, classes, mean, std, train, val, test)
    raise ValueError(f"no {title} under {data_dir}: expected {expected} (from {URL})")


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
    """(n, 3072), channel by channel -> (n, 32, 32, 3)."""
    return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
