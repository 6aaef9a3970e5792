import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vix_flax.mixers import TokenMlp

x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 10)), jnp.float32)
mixer = TokenMlp(expansion_factor=3)
variables = jax.jit(mixer.init)(jax.random.key(0), x)


def run(x):
    return jax.jit(mixer.apply)(variables, x)


def test_it_is_two_dense_layers_along_the_tokens():
    first, second = variables["params"]["mlp"]["dense1"], variables["params"]["mlp"]["dense2"]
    hidden = jnp.einsum("bnc,nm->bcm", x, first["kernel"]) + first["bias"]
    hidden = nn.gelu(hidden, approximate=False)
    by_hand = jnp.einsum("bcm,mn->bnc", hidden, second["kernel"]) + second["bias"][:, None]
    assert hidden.shape == (2, 10, 18)
    np.testing.assert_allclose(run(x), by_hand, rtol=0, atol=1e-5)


def test_a_feature_sees_only_itself():
    before, after = run(x), run(x.at[..., 3].add(1))
    others = np.arange(10) != 3
    np.testing.assert_allclose(after[..., others], before[..., others], rtol=0, atol=1e-6)
    assert (np.abs(after - before)[..., 3] > 1e-6).all()


def test_a_map_is_its_tokens():
    np.testing.assert_array_equal(run(x.reshape(2, 2, 3, 10)).reshape(x.shape), run(x))


def test_dropout_acts_in_training_alone():
    dropping, rngs = TokenMlp(expansion_factor=3, dropout=0.5), {"dropout": jax.random.key(0)}
    trained = jax.jit(lambda x: dropping.apply(variables, x, train=True, rngs=rngs))(x)
    np.testing.assert_allclose((trained == 0).mean(), 0.5, atol=0.15)
    np.testing.assert_array_equal(jax.jit(dropping.apply)(variables, x), run(x))


def test_bfloat16_is_close():
    out = jax.jit(TokenMlp(expansion_factor=3, dtype=jnp.bfloat16).apply)(variables, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), run(x), rtol=0, atol=0.03)
