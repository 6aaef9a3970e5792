import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import Conv, Dense


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_is_a_linear_map_of_the_last_axis(lead, use_bias):
    x, params = normal(*lead, 6), {"kernel": normal(6, 4, seed=1)}
    bias = normal(4, seed=2) if use_bias else 0
    if use_bias:
        params["bias"] = bias
    out = Dense(4, use_bias).apply({"params": params}, x)
    by_hand = np.asarray(x) @ np.asarray(params["kernel"]) + bias
    np.testing.assert_allclose(out, by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("c", "features"), [(6, 4), (4, 6)])
def test_dense_has_the_gradients_of_its_product(c, features):
    x, kernel, g = normal(2, 3, c), normal(c, features, seed=1), normal(2, 3, features, seed=2)
    layer = Dense(features, use_bias=False)
    apply = lambda x, kernel: layer.apply({"params": {"kernel": kernel}}, x)
    to_x, to_kernel = jax.vjp(apply, x, kernel)[1](g)
    np.testing.assert_allclose(to_x, g @ kernel.T, atol=1e-5)
    expected = x.reshape(-1, c).T @ g.reshape(-1, features)
    np.testing.assert_allclose(to_kernel, expected, atol=1e-5)
    _, forward = jax.jvp(apply, (x, kernel), (x, kernel))
    np.testing.assert_allclose(forward, 2 * x @ kernel, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "fan_in"),
    [(Dense(60), (2, 16), 16), (Conv(40, 3), (1, 5, 5, 4), 36)],
)
def test_weights_and_biases_start_uniform_within_one_over_the_root_of_fan_in(layer, shape, fan_in):
    params = jax.jit(layer.init)(jax.random.key(0), jnp.zeros(shape))["params"]
    assert params.keys() == {"kernel", "bias"}
    for leaf in params.values():
        assert 0.85 * fan_in**-0.5 < np.abs(leaf).max() <= fan_in**-0.5
    np.testing.assert_allclose(params["kernel"].std(), (3 * fan_in) ** -0.5, rtol=0.05)


@pytest.mark.parametrize(("layer", "shape"), [(Dense(5), (2, 4)), (Conv(5, 3), (1, 4, 4, 2))])
@pytest.mark.parametrize(
    ("given", "dtype", "out"),
    [
        ("float32", "bfloat16", "bfloat16"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("bfloat16", None, "float32"),
    ],
)
def test_dtype_is_that_of_the_computation_and_not_of_the_parameters(
    layer, shape, given, dtype, out
):
    x = jax.ShapeDtypeStruct(shape, given)
    y, variables = jax.eval_shape(layer.clone(dtype=dtype).init_with_output, jax.random.key(0), x)
    assert y.dtype == out
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
