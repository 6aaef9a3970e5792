"""Image files of every usual kind become the array a model takes; others are refused."""

import numpy as np
import pytest
from PIL import Image

from vix_flax.data import read_image

GREY = np.random.default_rng(0).integers(0, 256, (8, 6), np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (8, 6, 3), np.uint8)


def write(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_a_grey_image_is_read_exactly(tmp_path):
    pixels = read_image(write(tmp_path / "a.png", GREY), (8, 6, 1))
    np.testing.assert_array_equal(pixels, GREY[..., None])
    assert pixels.dtype == np.uint8


def test_a_colour_image_is_read_exactly(tmp_path):
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png", RGB), (8, 6, 3)), RGB)


def test_grey_becomes_three_equal_channels(tmp_path):
    pixels = read_image(write(tmp_path / "a.png", GREY), (8, 6, 3))
    np.testing.assert_array_equal(pixels, np.repeat(GREY[..., None], 3, axis=-1))


def test_colour_becomes_its_luminance(tmp_path):
    pixels = read_image(write(tmp_path / "a.png", RGB), (8, 6, 1))
    np.testing.assert_allclose(pixels[..., 0], RGB @ [0.299, 0.587, 0.114], atol=1)


def test_transparent_pixels_are_black(tmp_path):
    alpha = np.zeros((8, 6, 1), np.uint8)
    alpha[:4] = 255
    path = write(tmp_path / "a.png", np.concatenate([RGB, alpha], axis=-1))
    pixels = read_image(path, (8, 6, 3))
    np.testing.assert_array_equal(pixels[:4], RGB[:4])
    assert not pixels[4:].any()


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).convert("P")
    image.putpalette([200, 10, 10, 10, 200, 10])
    image.save(tmp_path / "a.png", transparency=1)
    pixels = read_image(tmp_path / "a.png", (2, 2, 3))
    np.testing.assert_array_equal(pixels, [[[200, 10, 10], [0] * 3], [[0] * 3, [200, 10, 10]]])


@pytest.mark.parametrize("shape", [(4, 3, 3), (16, 20, 3), (5, 9, 1)])
def test_an_image_of_another_size_is_resized(tmp_path, shape):
    flat = np.full((8, 6, 3), 77, np.uint8)
    pixels = read_image(write(tmp_path / "a.png", flat), shape)
    assert pixels.shape == shape
    np.testing.assert_array_equal(pixels, np.full(shape, 77))


def test_height_comes_before_width(tmp_path):
    left_white = np.zeros((6, 12), np.uint8)
    left_white[:, :6] = 255
    pixels = read_image(write(tmp_path / "a.png", left_white), (2, 8, 1))[..., 0]
    assert (pixels[:, :3] > 200).all()
    assert (pixels[:, 5:] < 55).all()


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "gif"])
def test_other_formats(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", np.full((8, 6, 3), 120, np.uint8))
    np.testing.assert_allclose(read_image(path, (8, 6, 3)), 120, atol=3)


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"no such file.*a\.png"):
        read_image(tmp_path / "a.png", (8, 8, 3))


@pytest.mark.parametrize("text", ["", "not an image"])
def test_a_text_file_named_png(tmp_path, text):
    (tmp_path / "a.png").write_text(text)
    with pytest.raises(ValueError, match=r"a\.png is no image"):
        read_image(tmp_path / "a.png", (8, 8, 3))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_truncated_png(tmp_path, share):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    path = write(tmp_path / "a.png", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"a\.png is no image"):
        read_image(path, (8, 8, 3))


def test_a_folder(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_image(tmp_path, (8, 8, 3))


def test_a_model_of_two_channels_has_no_image_files(tmp_path):
    with pytest.raises(ValueError, match="2"):
        read_image(write(tmp_path / "a.png", GREY), (8, 6, 2))


def test_sixteen_bits_of_grey_are_scaled_and_not_cut_off(tmp_path):
    levels = (np.arange(64).reshape(8, 8) * 1024).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    pixels = read_image(tmp_path / "deep.png", (8, 8, 1))
    np.testing.assert_array_equal(pixels[..., 0], levels // 257)
