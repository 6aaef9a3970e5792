"""Tiny ImageNet from tiny archives in the official layout, and from broken ones."""

import numpy as np
import pytest
from official_archives import VAL, level, packed, tiny_imagenet, unpacked

from vix_flax.data import load_dataset


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("pack", [packed, unpacked])
def test_every_image_has_its_label(tmp_path, pack):
    data = load_dataset("tiny_imagenet", pack(tmp_path, tiny_imagenet()))
    assert data.classes == ("Egyptian cat", "bullfrog", "reel")
    assert (len(data.train), len(data.val), len(data.test)) == (54, 6, 6)
    assert data.image_shape == (64, 64, 3)
    for split in (data.train, data.val):
        brightness = split.images.reshape(len(split), -1)
        assert (np.ptp(brightness, axis=1) <= 2).all()  # greyscale files, too
    held_out = [level(label, i) for label in range(3) for i in (18, 19)]
    np.testing.assert_allclose(data.val.images[:, 0, 0, 0], held_out, atol=2)
    np.testing.assert_array_equal(data.val.labels, [0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose(data.train.images[:18, 0, 0, 0], 3 * np.arange(18), atol=2)
    np.testing.assert_array_equal(data.test.labels, [0, 1, 2, 0, 1, 2])
    shown = [level(i % 3, i) for i in range(VAL)]
    np.testing.assert_allclose(data.test.images[:, 0, 0, 0], shown, atol=2)


def test_classes_that_are_called_alike_keep_their_number(tmp_path):
    words = "n02124075\tcrane, bird\nn01641577\tcrane\nn04067472\treel\n"
    data = load_dataset("tiny_imagenet", packed(tmp_path, {**tiny_imagenet(), "words.txt": words}))
    assert data.classes == ("crane (n02124075)", "crane (n01641577)", "reel")


def without(*names):
    return {k: v for k, v in tiny_imagenet().items() if not any(n in k for n in names)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (without("wnids.txt"), r"holds no wnids\.txt"),
        (without("words.txt"), r"holds no words\.txt"),
        (without("val_annotations"), r"holds no val/val_annotations\.txt"),
        (without("train/n01641577/images"), "no images in train/n01641577"),
        ({**tiny_imagenet(), "val/val_annotations.txt": ""}, r"val_annotations\.txt is empty"),
        (without("val/images/val_3"), r"holds no val/images/val_3\.JPEG"),
        (
            {**tiny_imagenet(), "val/val_annotations.txt": "val_0.JPEG\tn09999999\t0\n"},
            "unknown class n09999999",
        ),
        (
            {**tiny_imagenet(), "val/val_annotations.txt": "val_0.JPEG\n"},
            r"has the line 'val_0\.JPEG'",
        ),
        (
            {**tiny_imagenet(), "train/n02124075/images/n02124075_7.JPEG": b"\xff\xd8cut off"},
            r"n02124075_7\.JPEG is no image that can be read",
        ),
    ],
)
def test_what_is_broken_is_named(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        load_dataset("tiny_imagenet", packed(tmp_path, files))


def test_bad_images_can_be_skipped(tmp_path, capsys):
    files = {**tiny_imagenet(), "train/n02124075/images/n02124075_7.JPEG": b"\xff\xd8cut off"}
    data = load_dataset("tiny_imagenet", packed(tmp_path, files), on_bad_image="skip")
    assert len(data.train) == 53
    assert "n02124075_7.JPEG" in capsys.readouterr().err


@pytest.mark.parametrize("data_dir", [None, "nowhere"])
def test_where_to_get_it_and_where_to_put_it(data_dir):
    with pytest.raises(ValueError, match=r"put tiny-imagenet-200\.zip or .* \(from http"):
        load_dataset("tiny_imagenet", data_dir)
