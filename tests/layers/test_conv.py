"""A convolution is the correlation that its definition says, and its derivative is XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import Conv
from vix_flax.layers.conv import _convolve, convolve


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


def gradients(function, x, kernel, *given):
    def objective(x, kernel):
        return jnp.sin(function(x, kernel, *given).astype(jnp.float32)).sum()

    return jax.grad(objective, (0, 1))(x, kernel)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding"),
    [((6, 8), 3, 1, 1), ((5, 7), 3, 2, 1), ((5, 7), 2, 2, 0), ((9, 6), 5, 3, 2), ((4, 4), 1, 1, 0),
     ((3, 3), 3, 1, 0), ((3, 4), 5, 1, 2)],
)  # fmt: skip
def test_gradients_are_xlas(size, kernel_size, stride, padding, dtype):
    x = normal(2, *size, 3).astype(dtype)
    kernel = normal(kernel_size, kernel_size, 3, 4, seed=1).astype(dtype)
    # In a loop, where XLA has no good way to find them on a CPU.
    several = lambda x, kernel: jax.lax.map(
        lambda x: gradients(convolve, x, kernel, stride, padding), jnp.stack([x, -x])
    )
    ours = jax.tree.map(lambda leaf: leaf[0], jax.jit(several)(x, kernel))
    plain = jax.jit(gradients, static_argnums=(0, 3, 4))(_convolve, x, kernel, stride, padding)
    close = dict(rtol=1e-5, atol=1e-5) if dtype == jnp.float32 else dict(rtol=2e-2, atol=1e-1)
    for a, b in zip(ours, plain, strict=True):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), **close)


def test_only_a_cpu_has_products_for_gradients(monkeypatch):
    def convolutions():
        given = normal(2, 5, 6, 3), normal(3, 3, 3, 4, seed=1)
        program = jax.make_jaxpr(lambda *given: gradients(convolve, *given, 2, 1))(*given)
        return str(program).count("conv_general_dilated")

    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert convolutions() == 1  # the forward pass
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert convolutions() > 1


def test_a_gradient_of_the_gradient_is_xlas():
    x, kernel = normal(2, 5, 6, 3), normal(3, 3, 3, 4, seed=1)

    def penalty(function):
        size = lambda x, kernel: sum(
            jnp.square(leaf).sum() for leaf in gradients(function, x, kernel, 2, 1)
        )
        return jax.jit(jax.grad(size, (0, 1)))(x, kernel)

    for a, b in zip(penalty(convolve), penalty(_convolve), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
