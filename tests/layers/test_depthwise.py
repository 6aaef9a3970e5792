"""Depth-wise convolution against XLA's grouped one, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import DepthwiseConv
from vix_flax.layers.depthwise import depthwise_conv


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def grouped(x, kernel, stride, padding):
    """The same by XLA; kernel (k, k, 1, c · multiplier)."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


CASES = [
    # kernel, stride, padding, (rows, columns)
    (3, 1, 1, (5, 7)),
    (3, 2, 1, (5, 8)),
    (3, 2, 0, (6, 7)),
    (2, 2, 1, (5, 4)),
    (5, 2, 2, (7, 6)),
    (4, 3, 3, (8, 5)),
    (1, 2, 0, (3, 4)),
    (3, 4, 2, (1, 9)),
]


@pytest.mark.parametrize(("k", "stride", "padding", "size"), CASES)
def test_values_and_gradients_are_xlas(k, stride, padding, size):
    x, kernel = normal(2, *size, 3), normal(k, k, 3, seed=1)

    def value_and_grads(conv):
        def objective(x, kernel):
            out = conv(x, kernel)
            return jnp.sin(out + jnp.arange(out.size).reshape(out.shape)).sum(), out

        (_, out), grads = jax.value_and_grad(objective, (0, 1), has_aux=True)(x, kernel)
        return out, grads

    @jax.jit
    def both(x, kernel):
        ours = value_and_grads(lambda x, kernel: depthwise_conv(x, kernel, stride, padding))
        theirs = value_and_grads(lambda x, kernel: grouped(x, kernel[:, :, None], stride, padding))
        return ours, theirs

    ours, theirs = both(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), ours, theirs)


def test_bfloat16_gradients_have_the_types_of_their_inputs():
    x, kernel = normal(1, 4, 4, 2).astype(jnp.bfloat16), normal(3, 3, 2).astype(jnp.bfloat16)
    objective = lambda x, kernel: depthwise_conv(x, kernel, 2, 1).astype(jnp.float32).sum()
    grads = jax.eval_shape(jax.grad(objective, (0, 1)), x, kernel)
    assert [(g.shape, g.dtype) for g in grads] == [(a.shape, jnp.bfloat16) for a in (x, kernel)]


def test_the_gradient_of_a_bfloat16_filter_is_summed_in_float32():
    x = jnp.ones((1, 60, 60, 1), jnp.bfloat16)  # in bfloat16, ones add up to 256 and no further
    objective = lambda kernel: depthwise_conv(x, kernel, 1, 0).astype(jnp.float32).sum()
    grad = jax.jit(jax.grad(objective))(jnp.ones((1, 1, 1), jnp.bfloat16))
    assert abs(float(grad[0, 0, 0]) - 3600) < 20


@pytest.mark.parametrize("multiplier", [1, 2])
def test_an_output_channel_reads_the_channel_it_was_multiplied_from(multiplier):
    module = DepthwiseConv(3, 2, 1, multiplier=multiplier)
    x, features = normal(2, 5, 6, 3), 3 * multiplier
    params = {"kernel": normal(3, 3, 1, features, seed=1), "bias": normal(features, seed=2)}
    out = jax.jit(module.apply)({"params": params}, x)
    by_xla = grouped(x, params["kernel"], 2, 1) + params["bias"]
    np.testing.assert_allclose(out, by_xla, rtol=0, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_parameters_start_uniform_by_the_taps_of_one_channel(use_bias):
    init = jax.jit(DepthwiseConv(5, use_bias=use_bias).init)
    params = init(jax.random.key(0), np.zeros((1, 5, 5, 40), "f4"))["params"]
    assert params.keys() == ({"kernel", "bias"} if use_bias else {"kernel"})
    assert params["kernel"].shape == (5, 5, 1, 40)
    for leaf in params.values():
        assert 0.18 < np.abs(leaf).max() <= 0.2


def test_dtype_is_that_of_the_computation():
    module = DepthwiseConv(3, dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(
        module.init_with_output, jax.random.key(0), jnp.zeros((1, 5, 5, 2))
    )
    assert (out.shape, out.dtype) == ((1, 3, 3, 2), jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
