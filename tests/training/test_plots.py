"""Pictures are PNG files that one can look at."""

import numpy as np
import pytest
from PIL import Image

from vix_flax.training.plots import plot_confusion, plot_curves


def row(epoch):
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    return {"epoch": epoch, **dict.fromkeys(names, 1 / epoch)}


def opened(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_curves(tmp_path, epochs):
    plot_curves(tmp_path / "curves.png", [row(i + 1) for i in range(epochs)], "a title")
    pixels = opened(tmp_path / "curves.png")
    height, width, _ = pixels.shape
    assert 300 < height < width < 2000
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10, "nothing is drawn"


@pytest.mark.parametrize("classes", [2, 10, 30, 100])
def test_confusion(tmp_path, classes):
    names = [f"class {i}" for i in range(classes)]
    plot_confusion(tmp_path / "c.png", np.eye(classes, dtype=int), names, "a title")
    height, width, _ = opened(tmp_path / "c.png").shape
    assert 300 < height < 2000
    assert height == width


def test_a_class_without_images_is_no_division_by_zero(tmp_path):
    counts = np.array([[3, 1], [0, 0]])
    with np.errstate(all="raise"):
        plot_confusion(tmp_path / "c.png", counts, ["a", "b"], "a title")
    assert opened(tmp_path / "c.png").any()


def test_what_was_taken_for_what_can_be_seen(tmp_path):
    right, wrong = np.eye(2, dtype=int), 1 - np.eye(2, dtype=int)
    pictures = []
    for counts in (right, wrong):
        plot_confusion(tmp_path / "c.png", counts, ["a", "b"], "a title")
        pictures.append(opened(tmp_path / "c.png"))
    assert not np.array_equal(*pictures)
