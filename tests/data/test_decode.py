"""Image files become arrays once; nothing half-written or out of date is ever read."""

import io
import os
import time

import numpy as np
import pytest
from PIL import Image

from vix_flax.data import decode
from vix_flax.data.decode import OnDemand, cached, decode_splits, memory_left
from vix_flax.data.files import files_in

SHAPE = (4, 6, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vix_flax" / "data"


@pytest.fixture
def pictures(tmp_path):
    """Ten images whose every pixel is ten times their number."""
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(10):
        Image.new("RGB", (6, 4), (10 * i,) * 3).save(root / f"{i}.png")
    return root


def splits_of(root, **options):
    names = [f"{i}.png" for i in range(10)]
    splits = {"train": (names[:7], list(range(7))), "test": (names[7:], [7, 8, 9])}
    return decode_splits(files_in(root), splits, SHAPE, **options)


def assert_in_order(split, numbers):
    np.testing.assert_array_equal(split.labels, numbers)
    np.testing.assert_array_equal(
        split.images, np.full((1, *SHAPE), 10) * np.reshape(numbers, (-1, 1, 1, 1))
    )
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)


def test_images_stand_by_their_labels(pictures):
    splits = splits_of(pictures)
    assert_in_order(splits["train"], range(7))
    assert_in_order(splits["test"], [7, 8, 9])


def test_nothing_is_decoded_twice(pictures, monkeypatch):
    splits_of(pictures)
    monkeypatch.setattr(decode, "_decode", None)
    assert_in_order(splits_of(pictures)["train"], range(7))


def test_a_changed_folder_is_decoded_anew_and_the_old_entry_goes(pictures, cache):
    splits_of(pictures)
    (before,) = cache.iterdir()
    Image.new("RGB", (6, 4), (200,) * 3).save(pictures / "0.png")
    assert splits_of(pictures)["train"].images[0].max() == 200
    (after,) = cache.iterdir()
    assert after != before


def test_a_damaged_entry_is_made_again(pictures, cache):
    splits_of(pictures)
    (entry,) = cache.iterdir()
    (entry / "images.npy").write_bytes((entry / "images.npy").read_bytes()[:100])
    assert_in_order(splits_of(pictures)["train"], range(7))


@pytest.mark.parametrize("name", ["images.npy", "names.txt"])
def test_an_entry_of_which_a_part_is_gone_is_made_again(pictures, cache, name):
    splits_of(pictures)
    (entry,) = cache.iterdir()
    (entry / name).unlink()
    assert_in_order(splits_of(pictures)["train"], range(7))


def test_what_killed_processes_left_is_removed_after_a_day(pictures, cache):
    for age, name in ((2, "writing-old"), (0, "writing-new")):
        (cache / name).mkdir(parents=True)
        seconds = time.time() - age * decode.DAY
        os.utime(cache / name, (seconds, seconds))
    splits_of(pictures)
    assert [path.name for path in cache.glob("writing-*")] == ["writing-new"]


def test_a_bad_image_is_named_or_skipped(pictures, capsys):
    (pictures / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"3\.png is no image that can be read"):
        splits_of(pictures)
    for _ in range(2):  # the second time from the cache
        splits = splits_of(pictures, on_bad_image="skip")
        assert_in_order(splits["train"], [0, 1, 2, 4, 5, 6])
        assert_in_order(splits["test"], [7, 8, 9])
        assert "skipped 1 images that cannot be read, such as 3.png" in capsys.readouterr().err
    with pytest.raises(ValueError, match="on_bad_image='ignore' must be error or skip"):
        splits_of(pictures, on_bad_image="ignore")


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_streamed_images_are_the_same(pictures, on_bad_image, capsys):
    splits = splits_of(pictures, stream=True, on_bad_image=on_bad_image)
    wanted = splits_of(pictures, stream=False)
    for name, split in splits.items():
        assert isinstance(split.images, OnDemand)
        assert split.images.shape == wanted[name].images.shape
        np.testing.assert_array_equal(split.images[[2, 0, 1]], wanted[name].images[[2, 0, 1]])
        np.testing.assert_array_equal(split.images[1:][0], wanted[name].images[1])


def test_a_bad_image_of_a_stream_is_named_or_skipped(pictures, capsys):
    (pictures / "3.png").write_bytes(b"no image")
    images = splits_of(pictures, stream=True)["train"].images
    with pytest.raises(ValueError, match=r"3\.png is no image that can be read"):
        images[3]
    for _ in range(2):  # the second time from the cache
        splits = splits_of(pictures, stream=True, on_bad_image="skip")
        np.testing.assert_array_equal(splits["train"].labels, [0, 1, 2, 4, 5, 6])
        assert splits["train"].images[3].max() == 40
        assert splits["test"].images[0].max() == 70
        assert "skipped 1 images that cannot be read, such as 3.png" in capsys.readouterr().err


@pytest.mark.parametrize(("left", "streamed"), [(2 * 720, False), (2 * 720 - 1, True)])
def test_what_takes_more_than_half_of_the_memory_is_streamed(pictures, monkeypatch, left, streamed):
    monkeypatch.setattr(decode, "memory_left", lambda: left)
    assert isinstance(splits_of(pictures)["train"].images, OnDemand) == streamed


def test_some_memory_is_left():
    assert 2**20 < memory_left() < 2**60


def test_no_good_image_at_all(pictures):
    for path in pictures.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="none of 10 images can be read"):
        splits_of(pictures, on_bad_image="skip")


def test_an_image_bomb_is_refused(pictures, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    with pytest.raises(ValueError, match=r"\.png is no image that can be read.*bomb"):
        splits_of(pictures)


def test_nothing_half_written_is_left_or_read(pictures, cache, monkeypatch, capsys):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    assert_in_order(splits_of(pictures)["train"], range(7))
    assert "not kept for the next time (No space left on device)" in capsys.readouterr().err
    assert not list(cache.iterdir())

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        splits_of(pictures)
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_made(pictures, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert_in_order(splits_of(pictures)["train"], range(7))
    assert "not kept" in capsys.readouterr().err


def test_another_process_was_first(pictures, cache):
    files = files_in(pictures)

    def build():
        cached(files, "what", lambda: {"x": np.arange(3)})  # as if at the same time
        return {"x": np.arange(3)}

    np.testing.assert_array_equal(cached(files, "what", build)["x"], np.arange(3))
    (entry,) = cache.iterdir()
    assert {path.name for path in entry.iterdir()} == {"names.txt", "x.npy"}


def test_an_interrupt_does_not_wait_for_all_images(pictures, monkeypatch):
    count = 0

    def slow(content, shape, path):
        nonlocal count
        count += 1
        if count == 1:
            raise KeyboardInterrupt
        return np.zeros(shape, np.uint8)

    monkeypatch.setattr(decode, "decode_image", slow)
    monkeypatch.setattr(decode.os, "cpu_count", lambda: 1)
    names = ["0.png"] * 5000
    with pytest.raises(KeyboardInterrupt):
        decode_splits(files_in(pictures), {"train": (names, [0] * 5000)}, SHAPE)
    assert count < 5000


def test_content_is_read_like_a_file():
    buffer = io.BytesIO()
    Image.new("L", (3, 2), 7).save(buffer, "png")
    assert decode.decode_image(buffer.getvalue(), (2, 3, 1)).tolist() == [[[7]] * 3] * 2
