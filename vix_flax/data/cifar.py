"""`cifar10` from the official archives: the python or the binary version, packed or unpacked.

Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images. Files are found in the
folder given or one level below, under the names that the archives have.
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vix_flax.data.dataset import Dataset, Split

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
LAYOUTS = {
    "cifar-10-batches-py": ("cifar-10-python.tar.gz", "data_batch_{}", "test_batch"),
    "cifar-10-batches-bin": ("cifar-10-binary.tar.gz", "data_batch_{}.bin", "test_batch.bin"),
}
PIXELS = 3 * 32 * 32


def load_cifar10(data_dir: str | None = None) -> Dataset:
    """45,000 training, 5,000 validation (the last training images) and 10,000 test images.

    Args:
        data_dir: a folder with `cifar-10-python.tar.gz`, `cifar-10-binary.tar.gz`,
            `cifar-10-batches-py/` or `cifar-10-batches-bin/`, or one of these itself.

    Raises:
        ValueError: nothing of the kind there, or a file that is missing, truncated or damaged.
    """
    names = " or ".join(f"{archive} or {folder}/" for folder, (archive, *_) in LAYOUTS.items())
    if data_dir is None:
        raise ValueError(f"cifar10 needs --data-dir: the folder that holds {names}")
    for folder, (archive, train_name, test_name) in LAYOUTS.items():
        read = _reader(Path(data_dir).resolve(), folder, archive)
        if read:
            decode = _from_pickle if folder.endswith("py") else _from_binary
            parts = [decode(read, train_name.format(i)) for i in range(1, 6)]
            counts = [len(labels) for _, labels in parts]
            if len(set(counts)) > 1:
                raise ValueError(f"training batches of {counts} images: one of them is truncated")
            images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            test = Split(*decode(read, test_name))
            cut = len(labels) - max(1, len(labels) // 10)
            train, val = Split(images[:cut], labels[:cut]), Split(images[cut:], labels[cut:])
            return Dataset("cifar10", CLASSES, MEAN, STD, train, val, test)
    raise ValueError(f"no CIFAR-10 under {data_dir}: expected {names}")


def _reader(root: Path, folder: str, archive: str) -> Callable[[str], bytes] | None:
    """A function from a file's name to its bytes, if this version of the data is at `root`."""
    places = [root, *(sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else ())]
    unpacked = next((p / folder for p in places if (p / folder).is_dir()), None)
    unpacked = root if root.name == folder and root.is_dir() else unpacked
    if unpacked:
        return lambda name: _read(unpacked / name)
    packed = (
        root
        if root.name == archive
        else next((p / archive for p in places if (p / archive).is_file()), None)
    )
    if not packed or not packed.is_file():
        return None
    try:
        with tarfile.open(packed) as tar:
            files = {
                Path(member.name).name: tar.extractfile(member).read()
                for member in tar
                if member.isfile()
            }
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{packed} is truncated or damaged ({error}); get it again") from None

    def from_archive(name):
        if name not in files:
            raise ValueError(
                f"{packed} holds no {name}: it is not the official archive, or cut off"
            )
        return files[name]

    return from_archive


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); unpack the archive again"
        ) from None


def _from_binary(read: Callable[[str], bytes], name: str) -> tuple[np.ndarray, np.ndarray]:
    raw = np.frombuffer(read(name), np.uint8)
    if not raw.size or raw.size % (PIXELS + 1):
        raise ValueError(f"{name} is truncated: {raw.size} bytes are no multiple of {PIXELS + 1}")
    rows = raw.reshape(-1, PIXELS + 1)
    return _images(rows[:, 1:]), rows[:, 0].astype(np.int32)


def _from_pickle(read: Callable[[str], bytes], name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = _ArraysOnly(io.BytesIO(read(name)), encoding="bytes").load()
        pixels, labels = np.asarray(content[b"data"]), np.asarray(content[b"labels"])
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
            raise ValueError(f"data {pixels.dtype} {pixels.shape} for {len(labels)} labels")
        if labels.dtype.kind not in "iu" or not np.all((labels >= 0) & (labels < len(CLASSES))):
            raise ValueError(f"labels are not all integers from 0 to {len(CLASSES) - 1}")
    except Exception as error:  # a damaged pickle raises almost anything
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{name} is truncated or no CIFAR-10 batch ({reason})") from None
    return _images(pixels), labels.astype(np.int32)


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
