import jax
import jax.numpy as jnp
import numpy as np

from vix_flax.attention import Linear
from vix_flax.attention.linear import kernel_attention


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def by_weights(q, k, v):
    """Attention with the weights q · k, formed."""
    weights = np.einsum("bnhr,bmhr->bhnm", *(np.asarray(x, np.float64) for x in (q, k)))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhnm,bmhe->bnhe", weights, v)


def test_it_is_attention_with_elu_plus_one_and_no_scale():
    q, k, v = 2 * normal(2, 7, 2, 8), normal(2, 9, 2, 8, seed=1), normal(2, 9, 2, 5, seed=2)
    out = Linear().apply({}, q, k, v)
    by_hand = by_weights(jax.nn.elu(q) + 1, jax.nn.elu(k) + 1, v)
    np.testing.assert_allclose(out, by_hand, rtol=0, atol=2e-6)


def test_kernel_attention_is_attention_by_products_of_features():
    q, k = jnp.exp(normal(2, 7, 2, 6)), jnp.exp(normal(2, 9, 2, 6, seed=1))
    v = normal(2, 9, 2, 5, seed=2)
    out = kernel_attention(q.swapaxes(1, 2), k.swapaxes(1, 2), v)
    np.testing.assert_allclose(out, by_weights(q, k, v), rtol=0, atol=2e-6)


def test_epsilon_joins_the_denominator():
    q, k, v = jnp.ones((1, 1, 2, 4)), jnp.ones((1, 1, 3, 4)), jnp.ones((1, 3, 1, 2))
    np.testing.assert_allclose(kernel_attention(q, k, v, epsilon=12.0), 0.5, rtol=1e-6)


def test_many_tokens_in_bfloat16_are_summed_in_float32():
    q = k = jnp.zeros((1, 2000, 1, 4), jnp.bfloat16)
    out = Linear().apply({}, q, k, jnp.ones((1, 2000, 1, 2), jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out.astype(jnp.float32), 1)
