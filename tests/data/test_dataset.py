"""Splits are checked when built."""

import numpy as np
import pytest

from vix_flax.data import Dataset, Split, load_dataset


def numbered(n):
    """A split whose i-th image has value i everywhere and label i."""
    images = np.arange(n, dtype=np.uint8).repeat(2 * 3).reshape(n, 2, 3, 1)
    return Split(images, np.arange(n, dtype=np.int32))


def dataset(classes="ab", **splits):
    return Dataset(
        "toy", tuple(classes), (0.5,), (0.5,), **{s: numbered(2) for s in PARTS} | splits
    )


PARTS = ("train", "val", "test")


def test_image_shape_is_height_width_channels():
    assert dataset().image_shape == (2, 3, 1)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split(np.zeros((2, 2, 3, 1), np.float32), np.zeros(2, np.int32)), "float32"),
        (Split(np.zeros((2, 2, 3), np.uint8), np.zeros(2, np.int32)), r"\(2, 2, 3\)"),
        (Split(np.zeros((2, 2, 3, 1), np.uint8), np.zeros(3, np.int32)), "2 images for 3 labels"),
        (Split(np.zeros((0, 2, 3, 1), np.uint8), np.zeros(0, np.int32)), "0 images"),
        (Split(np.zeros((2, 2, 3, 1), np.uint8), np.array([0, 2], np.int32)), "0 to 2"),
        (Split(np.zeros((2, 2, 3, 1), np.uint8), np.array([-1, 1], np.int32)), "-1"),
    ],
)
def test_a_split_that_cannot_be_trained_on_is_refused_by_name(part, split, message):
    with pytest.raises(ValueError, match=f"toy/{part}.*{message}"):
        dataset(**{part: split})


def test_an_unknown_data_set_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"'digit'.*'digits'"):
        load_dataset("digit")
