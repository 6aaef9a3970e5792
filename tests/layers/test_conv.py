"""A convolution is the correlation that its definition says, on large maps and on tiny ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import Conv


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def correlate(x, kernel, stride, padding):
    """The sum over each window, by its definition."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("bhwcij,ijcf->bhwf", windows[:, ::stride, ::stride], kernel)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (4, 4), (3, 4)])
@pytest.mark.parametrize(("kernel_size", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (2, 2, 0)])
def test_conv_is_a_correlation_with_symmetric_padding(size, kernel_size, stride, padding):
    x = normal(2, *size, 3)
    params = {"kernel": normal(kernel_size, kernel_size, 3, 4, seed=1), "bias": normal(4, seed=2)}
    out = jax.jit(Conv(4, kernel_size, stride, padding).apply)({"params": params}, x)
    by_hand = correlate(x, params["kernel"], stride, padding) + params["bias"]
    np.testing.assert_allclose(out, by_hand, rtol=0, atol=1e-5)


def test_a_map_too_small_for_the_kernel_has_no_positions():
    layer = Conv(4, 3, stride=2, use_bias=False)
    params = {"kernel": jnp.ones((3, 3, 3, 4))}
    assert layer.apply({"params": params}, jnp.ones((1, 2, 2, 3))).shape == (1, 0, 0, 4)
