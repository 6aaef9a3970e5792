import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vix_flax.layers import GeluPatchEmbed, NormPatchEmbed, PatchEmbed

img = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)
norm = nn.LayerNorm(epsilon=1e-5)


def patches():
    """Patches of 2 × 3: row by row, each flattened as row, column, channel."""
    cut = [
        [img[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3].reshape(2, 18) for j in range(2)]
        for i in range(2)
    ]
    return jnp.stack([jnp.stack(row, axis=1) for row in cut], axis=1)


def embed(cls):
    module = cls(dim=5, patch_size=(2, 3))
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), img)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), shapes)
    return jax.jit(module.apply)(variables, img), variables["params"]


def dense(params, x):
    return x @ params["dense"]["kernel"] + params["dense"]["bias"]


def normed(params, x):
    return norm.apply({"params": params}, x)


def test_patches_are_row_column_channel_through_one_dense_layer():
    out, params = embed(PatchEmbed)
    assert params.keys() == {"dense"}
    np.testing.assert_allclose(out, dense(params, patches()), rtol=0, atol=2e-5)


def test_norm_patch_embed_is_a_dense_layer_between_norms():
    out, params = embed(NormPatchEmbed)
    by_hand = normed(params["norm_out"], dense(params, normed(params["norm_in"], patches())))
    np.testing.assert_allclose(out, by_hand, rtol=0, atol=2e-5)


def test_gelu_patch_embed_norms_what_gelu_leaves():
    out, params = embed(GeluPatchEmbed)
    hidden = nn.gelu(dense(params, patches()), approximate=False)
    np.testing.assert_allclose(out, normed(params["norm_out"], hidden), rtol=0, atol=2e-5)


def test_one_grey_pixel_is_not_normed():
    module, grey = NormPatchEmbed(dim=5, patch_size=(1, 1)), img[..., :1]
    out, variables = jax.jit(module.init_with_output)(jax.random.key(0), grey)
    assert variables["params"].keys() == {"dense", "norm_out"}
    assert out.shape == (2, 4, 6, 5)
    assert np.abs(out[0, 0, 0] - out[0, 0, 1]).max() > 1e-3


@pytest.mark.parametrize("cls", [PatchEmbed, NormPatchEmbed, GeluPatchEmbed])
def test_grid_is_the_map_that_comes_out(cls):
    module = cls(dim=5, patch_size=(2, 3))
    out, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), img)
    assert out.shape == (2, *module.grid((4, 6)), 5) == (2, 2, 2, 5)


@pytest.mark.parametrize("size", [(5, 6), (4, 7)])
def test_patches_must_tile_the_image(size):
    message = r"patch_size=\(2, 3\) does not divide image_size="
    with pytest.raises(ValueError, match=message):
        PatchEmbed(dim=5, patch_size=(2, 3)).grid(size)
