import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import ConvStem, ReluConvStem, StridedConvStem

img = jnp.asarray(np.random.default_rng(0).normal(size=(1, 9, 11, 2)), jnp.float32)


@pytest.fixture(scope="module", params=[ConvStem, ReluConvStem])
def stem(request):
    """The class, and its map of images."""
    module = request.param(dim=5)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), img)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4") / 9, shapes)
    return request.param, jax.jit(lambda img: module.apply(variables, img))


@pytest.mark.parametrize("cls", [ConvStem, StridedConvStem, ReluConvStem])
@pytest.mark.parametrize("size", [(8, 6), (7, 9), (1, 1)])
def test_grid_is_the_map_that_comes_out(cls, size):
    module = cls(dim=5)
    x = jnp.zeros((2, *size, 3))
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert out.shape == (2, *module.grid(size), 5)
    kernels = [variables["params"][f"conv{i}"]["kernel"].shape for i in (1, 2, 3)]
    assert kernels == [(3, 3, 3, 32), (3, 3, 32, 64), (3, 3, 64, 5)]


def test_stride_halves_the_map_and_rounds_up():
    assert StridedConvStem(dim=5).grid((8, 7)) == (4, 4)
    assert ConvStem(dim=5).grid((8, 7)) == (8, 7)


def test_a_position_sees_three_pixels_each_way(stem):
    _, call = stem
    before, after = np.asarray(call(img)), np.asarray(call(img.at[0, 4, 5].add(3)))
    changed = np.argwhere(np.abs(after - before)[0].max(axis=-1) > 1e-6)
    np.testing.assert_array_equal(changed.min(axis=0), [1, 2])
    np.testing.assert_array_equal(changed.max(axis=0), [7, 8])


def test_only_relu_breaks_linearity(stem):
    cls, call = stem
    additive = call(img) + call(2 * img) - call(3 * img) - call(0 * img)
    if cls is ReluConvStem:
        assert np.abs(additive).max() > 1e-2
        assert (call(img) >= 0).all()
    else:
        np.testing.assert_allclose(additive, 0, atol=1e-5)


@pytest.mark.parametrize("cls", [ConvStem, StridedConvStem, ReluConvStem])
def test_a_stem_cuts_no_patches(cls):
    with pytest.raises(ValueError, match=r"patch_size=\(2, 2\) does not work .* patch_size=1"):
        cls(dim=5, patch_size=(2, 2)).grid((8, 8))
