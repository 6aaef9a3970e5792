"""`tiny_imagenet`: 200 classes of 64 × 64 images, from the official zip or its unpacked folder.

Stanford CS231n (Le and Yang 2015, Tiny ImageNet Visual Recognition Challenge). Its test images have
no labels: as usual, the validation images are what is tested on, and a tenth of the training images
of each class is held out.
"""

from collections import defaultdict

from vix_flax.data.dataset import Dataset
from vix_flax.data.decode import decode_splits
from vix_flax.data.files import Files, find_files

FOLDER, ARCHIVE = "tiny-imagenet-200", "tiny-imagenet-*.zip"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MEAN, STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)
SHAPE = (64, 64, 3)


def load_tiny_imagenet(data_dir: str | None = None, on_bad_image: str = "error") -> Dataset:
    """90,000 training, 10,000 validation (the last tenth of each class) and 10,000 test images.

    Args:
        data_dir: a folder with `tiny-imagenet-200.zip` or `tiny-imagenet-200/`, or one of these.
        on_bad_image: "error", or "skip" what cannot be decoded.

    Raises:
        ValueError: nothing of the kind there, or a file that is missing or damaged.
    """
    expected = f"tiny-imagenet-200.zip (from {URL}) or {FOLDER}/"
    if data_dir is None:
        raise ValueError(f"tiny_imagenet needs --data-dir: the folder that holds {expected}")
    files = find_files(data_dir, FOLDER, ARCHIVE)
    if files is None:
        raise ValueError(f"no Tiny ImageNet under {data_dir}: expected {expected}")
    wnids = files.read("wnids.txt").decode().split()
    label = {wnid: i for i, wnid in enumerate(wnids)}
    by_class = defaultdict(list)
    for name in files.names:
        split, _, rest = name.partition("/")
        if split == "train" and rest.lower().endswith(".jpeg"):
            by_class[rest.split("/")[0]].append(name)
    splits = {"train": ([], []), "val": ([], []), "test": ([], [])}
    for wnid in wnids:
        found = sorted(by_class[wnid], key=_number)
        if len(found) < 2:
            raise ValueError(f"{files.origin}: {len(found)} images in train/{wnid}, which needs 2")
        cut = len(found) - max(1, len(found) // 10)
        for split, names in (("train", found[:cut]), ("val", found[cut:])):
            splits[split][0].extend(names)
            splits[split][1].extend([label[wnid]] * len(names))
    for name, wnid in _annotations(files):
        if wnid not in label:
            raise ValueError(f"{files.origin}: val_annotations.txt has the unknown class {wnid}")
        splits["test"][0].append(name)
        splits["test"][1].append(label[wnid])
    decoded = decode_splits(files, splits, SHAPE, on_bad_image)
    return Dataset("tiny_imagenet", _names(files, wnids), MEAN, STD, **decoded)


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
