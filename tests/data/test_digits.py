"""Digits: the package's own data set is what its documentation says."""

import numpy as np
import pytest

from vix_flax.data import load_dataset

PARTS = {"train": 1259, "val": 179, "test": 359}


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.mark.parametrize(("part", "size"), PARTS.items())
def test_a_split_has_the_documented_size_and_type(digits, part, size):
    split = getattr(digits, part)
    assert split.images.shape == (size, 8, 8, 1)
    assert split.images.dtype == np.uint8
    assert split.labels.shape == (size,)
    assert split.labels.dtype == np.int32


@pytest.mark.parametrize("part", PARTS)
def test_a_split_has_every_class_and_the_whole_range_of_grey(digits, part):
    split = getattr(digits, part)
    assert set(split.labels) == set(range(10))
    assert (split.images.min(), split.images.max()) == (0, 255)


def test_the_splits_share_hardly_an_image(digits):
    images = [image.tobytes() for part in PARTS for image in getattr(digits, part).images]
    assert len(images) == 1797
    assert len(set(images)) > 1790


def test_mean_and_standard_deviation_are_those_of_the_training_images(digits):
    pixels = digits.train.images / 255
    assert digits.mean == pytest.approx((pixels.mean(),), abs=1e-3)
    assert digits.std == pytest.approx((pixels.std(),), abs=1e-3)


def test_classes_are_the_digits(digits):
    assert digits.classes == tuple("0123456789")
    assert digits.image_shape == (8, 8, 1)


def test_loading_twice_gives_the_same_arrays(digits):
    np.testing.assert_array_equal(digits.train.images, load_dataset("digits").train.images)


def test_a_data_dir_is_refused():
    with pytest.raises(ValueError, match="data_dir='/somewhere'"):
        load_dataset("digits", "/somewhere")
