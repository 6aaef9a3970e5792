import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import SequencePool, mean_pool


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 4, 5, 3), (1, 1, 3)])
def test_mean_pool_is_the_mean_of_all_tokens(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    expected = np.asarray(x).reshape(len(x), -1, 3).mean(axis=1)
    np.testing.assert_allclose(mean_pool(x), expected, atol=1e-6)


def test_mean_pool_adds_up_in_float32():
    x = jnp.full((1, 1000, 2), 1.0078125, jnp.bfloat16)  # 1000 of them are no bfloat16
    mean = mean_pool(x)
    assert mean.dtype == jnp.bfloat16
    np.testing.assert_array_equal(mean.astype(jnp.float32), 1.0078125)


def test_sequence_pool_weighs_tokens_by_the_softmax_of_their_scores():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3))
    kernel, bias = jax.random.normal(jax.random.key(1), (3, 1)), jnp.ones(1)
    out = SequencePool().apply({"params": {"score": {"kernel": kernel, "bias": bias}}}, x)
    weights = jax.nn.softmax((x @ kernel)[..., 0])
    np.testing.assert_allclose(out, jnp.einsum("bn,bnc->bc", weights, x), atol=1e-5)
