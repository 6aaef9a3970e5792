"""A learned factor for each channel."""

import jax
import jax.numpy as jnp
import numpy as np

from vix_flax.layers import LayerScale

x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)


def test_it_starts_at_the_given_factor():
    out, variables = LayerScale(1e-5).init_with_output(jax.random.key(0), x)
    np.testing.assert_array_equal(variables["params"]["scale"], np.full(4, 1e-5, "f4"))
    np.testing.assert_allclose(out, 1e-5 * x, rtol=1e-6)


def test_every_channel_has_its_own_factor():
    scale = jnp.asarray([1.0, -2.0, 0.0, 0.5])
    out = LayerScale(0.1).apply({"params": {"scale": scale}}, x)
    np.testing.assert_allclose(out, x * scale, rtol=1e-6)


def test_it_keeps_the_type_of_its_input():
    out, variables = LayerScale(0.1).init_with_output(jax.random.key(0), x.astype(jnp.bfloat16))
    assert (out.dtype, variables["params"]["scale"].dtype) == (jnp.bfloat16, jnp.float32)
