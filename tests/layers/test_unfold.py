"""Overlapping windows against XLA's, and the embedding made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import UnfoldEmbed, unfold, unfolded_side

img = np.random.default_rng(0).normal(size=(2, 5, 8, 3)).astype("f4")


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, 1), (3, 1, 0), (2, 2, 0), (4, 3, 2), (1, 2, 0)]
)
def test_windows_are_channel_row_column(kernel, stride, padding):
    @jax.jit
    def both(img):
        patches = jax.lax.conv_general_dilated_patches(
            img,
            (kernel, kernel),
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return unfold(img, kernel, stride, padding), patches

    ours, patches = both(img)
    np.testing.assert_allclose(ours, patches, rtol=0, atol=1e-6)
    sides = [unfolded_side(side, kernel, stride, padding) for side in (5, 8)]
    assert list(ours.shape[1:3]) == sides


def test_one_window_is_one_flattened_patch():
    patch = img[0, 2:4, 1:3]  # (row, column, channel)
    np.testing.assert_array_equal(
        jax.jit(unfold, static_argnums=(1, 2))(img, 2, 1)[0, 2, 1], patch.transpose(2, 0, 1).ravel()
    )


@pytest.mark.parametrize("p", [2, 3, 4])
def test_windows_of_the_embedding_are_half_a_patch_apart(p):
    module, x = UnfoldEmbed(dim=5, patch_size=(p, p)), jnp.zeros((1, 12, 24, 2))
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert out.shape == (1, *module.grid((12, 24)), 5)
    assert variables["params"]["dense"]["kernel"].shape == (2 * p * p, 5)
    assert module.grid((12, 24)) == ((12 - p) // (p // 2) + 1, (24 - p) // (p // 2) + 1)


@pytest.mark.parametrize("patch_size", [(2, 4), (4, 2), (1, 1)])
def test_windows_are_square_and_can_be_halved(patch_size):
    message = rf"patch_size=\({patch_size[0]}, {patch_size[1]}\) must be square, at least 2"
    with pytest.raises(ValueError, match=message):
        UnfoldEmbed(dim=5, patch_size=patch_size).grid((8, 8))


@pytest.mark.parametrize("size", [(6, 8), (8, 6)])
def test_windows_must_tile_the_image(size):
    with pytest.raises(ValueError, match="patch_size=4 does not divide image_size="):
        UnfoldEmbed(dim=5, patch_size=(4, 4)).grid(size)
