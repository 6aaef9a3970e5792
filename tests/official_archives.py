"""Tiny archives in the true layout of the official ones."""

import io
import pickle
import shutil
import tarfile
import zipfile

import numpy as np
from PIL import Image

NAMES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
PER_BATCH = 4
LAYOUTS = ("python folder", "python archive", "binary folder", "binary archive")


def cifar10():
    """Name → (images (n, 32, 32, 3), labels (n,)) of all six files."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (PER_BATCH, 32, 32, 3), np.uint8), rng.integers(0, 10, 4))
        for name in (*NAMES, "test_batch")
    }


def rows(images):
    """As stored: all red values of an image, then green, then blue."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def python_file(images, labels):
    batch = {b"batch_label": b"tiny", b"labels": labels.tolist(), b"data": rows(images)}
    return pickle.dumps(batch, protocol=2)


def binary_file(images, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), rows(images)], axis=1).tobytes()


def files_of(layout, batches):
    if layout.startswith("python"):
        return {name: python_file(*batch) for name, batch in batches.items()}
    return {f"{name}.bin": binary_file(*batch) for name, batch in batches.items()}


def write(root, layout, files):
    """Writes the files in this layout under `root`; returns the folder or archive."""
    kind = "py" if layout.startswith("python") else "bin"
    folder = f"cifar-10-batches-{kind}"
    if layout.endswith("folder"):
        (root / folder).mkdir(parents=True)
        for name, data in files.items():
            (root / folder / name).write_bytes(data)
        return root / folder
    root.mkdir(parents=True, exist_ok=True)
    archive = root / f"cifar-10-{'python' if kind == 'py' else 'binary'}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive


CLASSES100 = tuple(f"class_{i}" for i in range(100))


def cifar100(root, kind, classes=CLASSES100):
    """Twenty training and four test images in the layout of CIFAR-100; returns them."""
    rng = np.random.default_rng(1)
    sets = {
        name: (rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(0, 100, n))
        for name, n in (("train", 20), ("test", 4))
    }
    folder = root / f"cifar-100-{kind}"
    folder.mkdir(parents=True)
    for name, (images, labels) in sets.items():
        coarse = np.full(len(labels), 7)
        if kind == "python":
            batch = {b"fine_labels": labels.tolist(), b"coarse_labels": coarse.tolist()}
            content = pickle.dumps({**batch, b"data": rows(images)}, protocol=2)
            (folder / name).write_bytes(content)
        else:
            columns = np.stack([coarse, labels], axis=1).astype(np.uint8)
            content = np.concatenate([columns, rows(images)], axis=1).tobytes()
            (folder / f"{name}.bin").write_bytes(content)
    if kind == "python":
        names = {b"fine_label_names": [name.encode() for name in classes]}
        (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))
    else:
        (folder / "fine_label_names.txt").write_text("\n".join(classes) + "\n")
    return sets


WNIDS = ("n02124075", "n01641577", "n04067472")
PER_CLASS, VAL = 20, 6


def jpeg(level, mode="RGB"):
    buffer = io.BytesIO()
    colour = level if mode == "L" else (level,) * 3
    Image.new(mode, (64, 64), colour).save(buffer, "jpeg", quality=95)
    return buffer.getvalue()


def level(label, i):
    """How bright image i of a class is: unlike any other, and a greyscale file now and then."""
    return 80 * label + 3 * i


def tiny_imagenet():
    """Name → content, as the official archive has them."""
    files = {
        "wnids.txt": "\n".join(WNIDS) + "\n",
        "words.txt": "n00000000\tnothing\nn01641577\tbullfrog, Rana catesbeiana\n"
        "n02124075\tEgyptian cat\nn04067472\treel\n",
        "test/images/test_0.JPEG": jpeg(1),
    }
    lines = []
    for label, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = "boxes"
        for i in range(PER_CLASS):
            mode = "L" if i % 5 == 0 else "RGB"
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(level(label, i), mode)
    for i in range(VAL):
        files[f"val/images/val_{i}.JPEG"] = jpeg(level(i % 3, i))
        lines.append(f"val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t0\t1\t1\n")
    return {**files, "val/val_annotations.txt": "".join(lines)}


def packed(root, files):
    with zipfile.ZipFile(root / "tiny-imagenet-200.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)
    return str(root)


def unpacked(root, files):
    packed(root, files)
    shutil.unpack_archive(root / "tiny-imagenet-200.zip", root / "below")
    (root / "tiny-imagenet-200.zip").unlink()
    return str(root)
