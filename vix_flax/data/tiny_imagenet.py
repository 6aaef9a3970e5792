"""`tiny_imagenet`: 200 classes of 64 × 64 images, from the official zip or its unpacked folder.

Stanford CS231n (Le and Yang 2015, Tiny ImageNet Visual Recognition Challenge). Its test images have
no labels: as usual, the validation images are what is tested on, and a tenth of the training images
of each class is held out.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from vix_flax.data.dataset import Dataset
from vix_flax.data.decode import decode_splits
from vix_flax.data.files import Files, find_files
from vix_flax.data.prepared import default_data_dir, find_prepared, nothing_there, read_prepared

FOLDER, ARCHIVE = "tiny-imagenet-200", "tiny-imagenet-*.zip"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MEAN, STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)
SHAPE = (64, 64, 3)
Named = tuple[Sequence[str], Sequence[int]]


def load_tiny_imagenet(
    data_dir: str | None = None, on_bad_image: str = "error", stream: bool | None = None
) -> Dataset:
    """90,000 training, 10,000 validation (the last tenth of each class) and 10,000 test images.

    Args:
        data_dir: a folder with `tiny-imagenet-200.zip` or `tiny-imagenet-200/`, or one of these;
            or with `vix_tiny_imagenet` as TFDS has prepared it. None: where TFDS keeps its sets.
        on_bad_image: "error", or "skip" what cannot be decoded.
        stream: as in `load_dataset`.

    Raises:
        ValueError: nothing of the kind there, or a file that is missing or damaged.
    """
    place = data_dir or default_data_dir()
    prepared = find_prepared(place, ("vix_tiny_imagenet",))
    kept = ("train", "validation")  # the test images have no labels
    found = read_prepared(prepared, kept) if prepared else find_official(place)
    if found is None:
        expected = f"tiny-imagenet-200.zip or {FOLDER}/"
        raise ValueError(nothing_there("tiny_imagenet", "Tiny ImageNet", data_dir, expected, URL))
    files, classes, official = found
    train, val = _last_tenth_of_each(*official["train"], files.origin)
    splits = {"train": train, "val": val, "test": official["validation"]}
    decoded = decode_splits(files, splits, SHAPE, on_bad_image, stream)
    return Dataset("tiny_imagenet", tuple(classes), MEAN, STD, **decoded)


def find_official(folder: str) -> tuple[Files, tuple[str, ...], dict[str, Named]] | None:
    """Files, names of classes, and each official split's (names, labels): `train` class by class,
    `validation`, and `test`, whose labels are -1.

    Raises:
        ValueError: a file that is missing or damaged.
    """
    files = find_files(folder, FOLDER, ARCHIVE)
    if files is None:
        return None
    wnids = files.read("wnids.txt").decode().split()
    label = {wnid: i for i, wnid in enumerate(wnids)}
    by_class, test = defaultdict(list), []
    for name in files.names:
        split, _, rest = name.partition("/")
        if split == "train" and rest.lower().endswith(".jpeg"):
            by_class[rest.split("/")[0]].append(name)
        elif split == "test" and rest.lower().endswith(".jpeg"):
            test.append(name)
    train = [(name, i) for i, w in enumerate(wnids) for name in sorted(by_class[w], key=_number)]
    for wnid in wnids:
        if not by_class[wnid]:
            raise ValueError(f"{files.origin}: no images in train/{wnid}")
    validation = []
    for name, wnid in _annotations(files):
        if wnid not in label:
            raise ValueError(f"{files.origin}: val_annotations.txt has the unknown class {wnid}")
        validation.append((name, label[wnid]))
    if not validation:
        raise ValueError(f"{files.origin}: val_annotations.txt is empty")
    splits = {
        "train": tuple(map(list, zip(*train, strict=True))),
        "validation": tuple(map(list, zip(*validation, strict=True))),
        "test": (sorted(test, key=_number), [-1] * len(test)),
    }
    return files, _names(files, wnids), splits


def _last_tenth_of_each(names, labels, origin) -> tuple[Named, Named]:
    """What is left of the training images, and the last tenth of every class."""
    labels = np.asarray(labels)
    held_out = np.zeros(len(labels), bool)
    for label, count in enumerate(np.bincount(labels)):
        if count < 2:
            raise ValueError(f"{origin}: {count} training images of class {label}, which needs 2")
        held_out[np.flatnonzero(labels == label)[-max(1, count // 10) :]] = True
    names = np.asarray(names)
    return tuple((names[part].tolist(), labels[part]) for part in (~held_out, held_out))


def _number(name: str) -> int:
    """n01443537_17.JPEG -> 17, so that the order does not depend on how names are sorted."""
    digits = name.rpartition("_")[2].partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def _annotations(files: Files):
    """(path, wnid) of every validation image."""
    for line in files.read("val/val_annotations.txt").decode().splitlines():
        fields = line.split("\t")
        if len(fields) < 2:
            raise ValueError(f"{files.origin}: val_annotations.txt has the line {line!r}")
        yield f"val/images/{fields[0]}", fields[1]


def _names(files: Files, wnids: list[str]) -> tuple[str, ...]:
    """What a person calls each class; the wnid, too, where two classes are called alike."""
    words = dict(
        line.split("\t", 1)
        for line in files.read("words.txt").decode().splitlines()
        if "\t" in line
    )
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({wnid})"
        for name, wnid in zip(names, wnids, strict=True)
    )
