"""From a file of CIFAR-10 as JPEGs to the official binary archive, for machines without a network.

    python benchmarks/cifar10_from_jpegs.py cifar10_jpeg.npz DIR

Reads an npz with `header` (of every JPEG), `body`, `offsets` (n + 1), `labels` and `n_train`;
image i is the file `header + body[offsets[i]:offsets[i + 1]]`. Writes
`DIR/cifar-10-binary.tar.gz` in the official layout. JPEG loses a little: say so beside any
accuracy measured on it.
"""

import io
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

BATCH = 10_000
META = "airplane automobile bird cat deer dog frog horse ship truck".replace(" ", "\n") + "\n"


def records(path):
    """`(n, 3073)` uint8 rows of the binary version: a label, then red, green, blue; and n_train."""
    with np.load(path) as file:
        header, body, offsets = (file[name] for name in ("header", "body", "offsets"))
        labels, n_train = file["labels"], int(file["n_train"])
    rows = np.empty((len(labels), 3073), np.uint8)
    rows[:, 0] = labels
    for i, (start, stop) in enumerate(pairwise(offsets)):
        jpeg = io.BytesIO(header.tobytes() + body[start:stop].tobytes())
        rows[i, 1:] = np.asarray(Image.open(jpeg)).transpose(2, 0, 1).ravel()
    return rows, n_train


def write(rows, n_train, folder):
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        f"data_batch_{i + 1}.bin": rows[start : start + BATCH]
        for i, start in enumerate(range(0, n_train, BATCH))
    }
    files = {"batches.meta.txt": META.encode(), **files, "test_batch.bin": rows[n_train:]}
    path = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            content = content if isinstance(content, bytes) else content.tobytes()
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: cifar10_from_jpegs.py FILE.npz DIR")
    print(write(*records(sys.argv[1]), Path(sys.argv[2])))
