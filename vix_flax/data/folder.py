"""`folder`: your own images, in a folder for each class.

`PATH/train/<class>/*.jpg`, and `PATH/val/` or `PATH/test/` alike. Without `test`, `val` is what is
tested on; what is missing then is drawn from `train`, a tenth of each class for each.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from vix_flax.data.dataset import Dataset
from vix_flax.data.decode import decode_splits
from vix_flax.data.files import Files, files_in

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SAMPLE = 10_000  # images that tell what a channel's mean is
Named = tuple[list[str], list[int]]


def load_folder(
    data_dir: str | None = None,
    img_size: int = 64,
    on_bad_image: str = "error",
    stream: bool | None = None,
) -> Dataset:
    """Your own images in train/<class>/, cut to the middle square of `img_size` pixels.

    Args:
        data_dir: the folder that has `train/`.
        img_size: pixels.
        on_bad_image: "error", or "skip" what cannot be decoded.
        stream: as in `load_dataset`.

    Raises:
        ValueError: no such folders, no images, an empty class, images outside of class folders, or
            a class in `val` or `test` that `train` has not.
    """
    if data_dir is None:
        raise ValueError("folder needs --data-dir: the folder that holds train/<class>/<image>")
    if type(img_size) is not int or img_size < 1:
        raise ValueError(f"img_size={img_size!r} must be a positive int")
    root = Path(data_dir).expanduser().resolve()
    if not (root / "train").is_dir():
        raise ValueError(f"no folder {root}/train: expected train/<class>/<image> in it")
    classes = tuple(sorted(p.name for p in (root / "train").iterdir() if _is_class(p)))
    if len(classes) < 2:
        raise ValueError(f"{root}/train has {len(classes)} class folders: at least 2 are needed")
    files = files_in(root)
    splits = {name: _listed(files, name, classes) for name in ("train", "val", "test")}
    if not splits["test"][0]:
        splits["test"], splits["val"] = splits["val"], ([], [])
    for name in ("test", "val"):
        if not splits[name][0]:
            splits["train"], splits[name] = _held_out(splits["train"], name)
    decoded = decode_splits(files, splits, (img_size, img_size, 3), on_bad_image, stream)
    mean, std = statistics(decoded["train"].images)
    return Dataset("folder", classes, mean, std, **decoded)


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _listed(files: Files, split: str, classes: tuple[str, ...]) -> Named:
    """Images of a split and their labels, by class folder."""
    found = defaultdict(list)
    for name in files.names:
        top, *between = name.split("/")
        image = between.pop() if between else ""
        if top != split or image.startswith(".") or not image.lower().endswith(SUFFIXES):
            continue
        if not between:
            raise ValueError(f"{files.origin / name} lies in no class folder: move it into one")
        if not between[0].startswith("."):
            found[between[0]].append(name)
    unknown = sorted(found.keys() - set(classes))
    if unknown:
        raise ValueError(f"{files.origin}/{split} has classes that train has not: {unknown}")
    if split == "train":
        empty = [name for name in classes if not found[name]]
        if empty:
            raise ValueError(f"{files.origin}/train: no images in {empty}; remove or fill them")
    names = [name for label in classes for name in found[label]]
    return names, [i for i, label in enumerate(classes) for _ in found[label]]


def _held_out(train: Named, split: str) -> tuple[Named, Named]:
    """What is left of `train`, and a tenth of each class, drawn by a fixed seed."""
    names, labels = map(np.asarray, train)
    rng = np.random.default_rng(0)
    chosen = np.zeros(len(names), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < 3:
            raise ValueError(
                f"{names[members[0]]}: a class of {len(members)} images cannot give any to {split}"
            )
        chosen[members[: max(1, len(members) // 10)]] = True
    return tuple((names[part].tolist(), labels[part].tolist()) for part in (~chosen, chosen))


def statistics(images: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, for pixels in [0, 1], of at most `SAMPLE` images
    drawn by a fixed seed.
    """
    counts = np.zeros((images.shape[-1], 256), np.int64)
    chosen = np.arange(len(images))
    if len(images) > SAMPLE:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:SAMPLE])
    for start in range(0, len(chosen), 256):  # bincount works on a copy eight times as large
        some = images[chosen[start : start + 256]]
        for channel, row in enumerate(counts):
            row += np.bincount(some[..., channel].ravel(), minlength=256)
    shares, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = shares @ levels
    std = np.sqrt((shares * (levels - mean[:, None]) ** 2).sum(axis=1))
    return tuple(mean.tolist()), tuple(np.maximum(std, 1 / 255).tolist())
