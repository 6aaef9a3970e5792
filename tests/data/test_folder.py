"""A folder for each class: any sizes, any formats; what does not add up is named."""

import numpy as np
import pytest
from PIL import Image

from vix_flax.data import folder, load_dataset
from vix_flax.data.folder import statistics

COLOURS = {"cat": (250, 10, 10), "dog": (10, 250, 10), "eel": (10, 10, 250)}
SIZES = ((30, 20), (20, 30), (16, 16), (5, 40), (100, 80))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def fill(root, split, count, classes=COLOURS):
    for label in classes:
        folder = root / split / label
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = Image.new("RGB", SIZES[i % len(SIZES)], COLOURS.get(label, (0, 0, 0)))
            image.save(folder / f"{i}{('.png', '.jpg', '.WebP', '.jpeg')[i % 4]}")


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "pets", "train", 20)
    (tmp_path / "pets" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / "train" / "cat" / ".DS_Store").write_bytes(b"no image")
    (tmp_path / "pets" / "train" / "cat" / "Thumbs.db").write_bytes(b"no image")
    return tmp_path / "pets"


def loaded(root, **options):
    return load_dataset("folder", str(root), **{"img_size": 8, **options})


def assert_colours(split):
    wanted = np.array(list(COLOURS.values()))[split.labels]
    np.testing.assert_allclose(split.images.mean(axis=(1, 2)), wanted, atol=6)


def sizes(data):
    return len(data.train), len(data.val), len(data.test)


def test_all_three_splits(root):
    fill(root, "val", 3)
    fill(root, "test", 4)
    data = loaded(root)
    assert data.classes == ("cat", "dog", "eel")
    assert data.image_shape == (8, 8, 3)
    assert sizes(data) == (60, 9, 12)
    for split in (data.train, data.val, data.test):
        assert_colours(split)


@pytest.mark.parametrize("split", ["val", "test"])
def test_one_split_beside_training_is_tested_on(root, split):
    fill(root, split, 3)
    assert sizes(loaded(root)) == (54, 6, 9)


def test_alone_a_tenth_of_each_class_is_held_out_twice(root):
    data = loaded(root)
    assert sizes(data) == (51, 3, 6)
    for split in (data.train, data.val, data.test):
        assert_colours(split)
        assert len(set(np.bincount(split.labels))) == 1
    again = loaded(root)
    np.testing.assert_array_equal(again.val.images, data.val.images)


def test_a_stream_has_the_same_images_and_statistics(root, monkeypatch):
    monkeypatch.setattr(folder, "SAMPLE", 20)
    data, streamed = loaded(root, stream=False), loaded(root, stream=True)
    assert (streamed.mean, streamed.std) == (data.mean, data.std)
    for name in ("train", "val", "test"):
        ours, theirs = getattr(data, name), getattr(streamed, name)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.images, theirs.images[range(len(theirs))])


def test_the_middle_square_in_proportion(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(4):
            pixels = np.zeros((10, 30, 3), np.uint8)
            pixels[:, 10:20] = 200
            Image.fromarray(pixels).save(tmp_path / "train" / label / f"{i}.png")
    images = loaded(tmp_path).train.images
    assert images.min() > 150  # nothing of the dark sides, but at the very edge of the resize


@pytest.mark.parametrize("img_size", [4, 24])
def test_the_size_is_chosen(root, img_size):
    assert loaded(root, img_size=img_size).image_shape == (img_size, img_size, 3)


def test_statistics_are_those_of_numpy():
    images = np.random.default_rng(0).integers(0, 256, (700, 3, 5, 3)).astype(np.uint8)
    mean, std = statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-9)
    assert min(statistics(np.zeros((2, 2, 2, 1), np.uint8))[1]) > 0


def spoil(root, what):
    if what == "empty":
        (root / "train" / "fox").mkdir()
    elif what == "unlabelled":
        Image.new("RGB", (8, 8)).save(root / "train" / "stray.png")
    elif what == "unknown":
        fill(root, "val", 1, ["gnu"])
    elif what == "broken":
        (root / "train" / "dog" / "0.png").write_bytes(b"\x89PNG")
    elif what == "few":
        for path in sorted((root / "train" / "eel").iterdir())[2:]:
            path.unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("empty", r"no images in \['fox'\]; remove or fill"),
        ("unlabelled", r"stray\.png lies in no class folder"),
        ("unknown", r"val has classes that train has not: \['gnu'\]"),
        ("broken", r"dog/0\.png is no image that can be read"),
        ("few", "a class of 2 images cannot give any to test"),
    ],
)
def test_what_does_not_add_up(root, what, message):
    spoil(root, what)
    with pytest.raises(ValueError, match=message):
        loaded(root)


def test_no_such_folders(tmp_path):
    with pytest.raises(ValueError, match="folder needs --data-dir"):
        load_dataset("folder")
    with pytest.raises(ValueError, match=r"no folder .*train: expected train/<class>"):
        loaded(tmp_path)
    (tmp_path / "train" / "only").mkdir(parents=True)
    with pytest.raises(ValueError, match="1 class folders: at least 2"):
        loaded(tmp_path)


def test_options_are_checked(root):
    with pytest.raises(ValueError, match="img_size=0 must be a positive int"):
        loaded(root, img_size=0)
    with pytest.raises(ValueError, match="img_size=8: digits has no use for it"):
        load_dataset("digits", img_size=8)
