import re

import jax.numpy as jnp
import pytest

from vix_flax import FNet2D, ViX
from vix_flax.models.image import check_image, example_image, pair


@pytest.mark.parametrize(("size", "both"), [(4, (4, 4)), ((4, 6), (4, 6)), ([4, 6], (4, 6))])
def test_a_size_is_an_int_or_height_and_width(size, both):
    assert pair("image_size", size) == both


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "4", None, (4,), (4, 4, 4), (4, 0), (4, 2.0)])
def test_other_sizes_are_refused(size):
    message = re.escape(f"patch_size={size!r} must be a positive int or (height, width)")
    with pytest.raises(ValueError, match=message):
        pair("patch_size", size)


@pytest.mark.parametrize("size", [None, (4, 6)])
def test_images_of_the_right_shape_pass(size):
    check_image((2, 4, 6, 3), 3, size)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((4, 6, 3), (4, 6), r"\(b, 4, 6, 3\); got \(4, 6, 3\); add a batch axis with img\[None\]"),
        ((4, 6, 3), None, r"\(b, h, w, 3\); got \(4, 6, 3\); add a batch axis"),
        ((4, 6), None, r"must have shape \(b, h, w, 3\); got \(4, 6\)$"),
        ((1, 2, 4, 6, 3), None, r"got \(1, 2, 4, 6, 3\)$"),
        ((2, 3, 4, 6), (4, 6), r"looks like NCHW; transpose to NHWC with img.transpose\(0, 2, 3"),
        ((2, 3, 4, 6), None, "looks like NCHW"),
        ((2, 4, 6, 1), (4, 6), "or build the model with channels=1"),
        ((2, 3, 5, 6), (4, 6), "or build the model with channels=6"),
        ((2, 6, 4, 3), (4, 6), r"resize them, or build the model with image_size=\(6, 4\)"),
    ],
)
def test_other_images_are_refused_with_a_remedy(shape, size, message):
    with pytest.raises(ValueError, match=message):
        check_image(shape, 3, size)


def test_an_example_is_what_the_model_takes():
    vix = ViX(
        image_size=(4, 6), patch_size=2, num_classes=3, dim=8, depth=1, heads=1, mlp_dim=8,
        channels=2,
    )  # fmt: skip
    example = example_image(vix, batch=5)
    assert (example.shape, example.dtype) == ((5, 4, 6, 2), jnp.float32)
    fnet2d = FNet2D(num_classes=3, dim=8, depth=1, mlp_dim=8)
    assert example_image(fnet2d).shape == (1, 32, 32, 3)
