"""`digits`: 1,797 hand-written digits of 8 × 8 pixels, inside the package, so that a first run
needs no network. Source and licence: `digits.LICENSE.md` beside this file.
"""

from pathlib import Path

import numpy as np

from vix_flax.data.dataset import Dataset, Split


def load_digits(data_dir: str | None = None) -> Dataset:
    """1,259 training, 179 validation and 359 test images, `(8, 8, 1)` uint8 from 0 to 255."""
    if data_dir is not None:
        raise ValueError(f"data_dir={data_dir!r}: digits is part of the package; leave it out")
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        levels, labels, part = file["image"], file["label"], file["split"]
    images = np.round(levels * (255 / 16)).astype(np.uint8)[..., None]
    splits = [Split(images[part == i], labels[part == i].astype(np.int32)) for i in range(3)]
    return Dataset("digits", tuple("0123456789"), (0.305,), (0.376,), *splits)
