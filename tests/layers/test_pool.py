import jax
import jax.numpy as jnp
import numpy as np

from vix_flax.layers import SequencePool


def test_sequence_pool_weighs_tokens_by_the_softmax_of_their_scores():
    x = jax.random.normal(jax.random.key(0), (2, 5, 3))
    kernel, bias = jax.random.normal(jax.random.key(1), (3, 1)), jnp.ones(1)
    out = SequencePool().apply({"params": {"score": {"kernel": kernel, "bias": bias}}}, x)
    weights = jax.nn.softmax((x @ kernel)[..., 0])
    np.testing.assert_allclose(out, jnp.einsum("bn,bnc->bc", weights, x), atol=1e-5)
