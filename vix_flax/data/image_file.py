"""One image file as the array a model was trained on."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


def read_image(path: str | Path, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Decodes a PNG, JPEG, WebP … file: uint8 of `image_shape` = (h, w, c).

    An image of another shape is cut to its middle, in proportion, and resized.

    Raises:
        ValueError: no such file, or no image that can be decoded; a number of channels other than
            1 (grey) or 3 (RGB).
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}") from None
    except OSError as error:
        raise ValueError(f"{path} is no image that can be read ({error})") from None
    return decode_image(content, image_shape, path)


def decode_image(
    content: bytes, image_shape: tuple[int, int, int], path: str | Path = "image"
) -> np.ndarray:
    """The same for a file's content; `path` is what an error calls it."""
    height, width, channels = image_shape
    if channels not in (1, 3):
        raise ValueError(f"image files have 1 or 3 channels; the model was trained on {channels}")
    try:
        with Image.open(io.BytesIO(content)) as image:
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
                image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
            # Transparent pixels are black, as the padding of a random crop is.
            if "A" in image.getbands() or "transparency" in image.info:
                image = Image.alpha_composite(
                    Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA")
                )
            mode = "L" if channels == 1 else "RGB"
            if image.mode != mode:
                image = image.convert(mode)
            if image.size != (width, height):
                image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
            pixels = np.asarray(image)
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        unknown = isinstance(error, UnidentifiedImageError)  # its text names our buffer
        reason = "of no kind that Pillow knows" if unknown else error
        raise ValueError(f"{path} is no image that can be read ({reason})") from None
    return pixels.reshape(image_shape)
