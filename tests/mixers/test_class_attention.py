"""A class token that asks itself and the patches."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import Linear, Softmax
from vix_flax.mixers import ClassAttention

rng = np.random.default_rng(0)
x, context = (rng.normal(size=(2, n, 6)).astype("f4") for n in (1, 5))


def mixer(core=None, **fields):
    return ClassAttention(core or Softmax(), heads=2, dim_head=4, **fields)


def params(module, x=x):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, context)["params"]
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4") / 2, shapes)


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("core", [Softmax(), Linear()])
def test_queries_are_of_x_and_keys_and_values_of_x_and_the_context(core, n):
    tokens = np.concatenate([x, 2 * x], axis=1)[:, :n]
    module = mixer(core)
    weights = params(module, tokens)
    asked = np.concatenate([tokens, context], axis=1)
    q = (np.asarray(tokens) @ weights["to_q"]["kernel"]).reshape(2, n, 2, 4)
    k, v = np.split(asked @ weights["to_kv"]["kernel"], 2, axis=-1)
    k, v = k.reshape(2, n + 5, 2, 4), v.reshape(2, n + 5, 2, 4)
    attended = np.asarray(jax.jit(core.apply)({}, q, k, v)).reshape(2, n, 8)
    by_hand = attended @ weights["to_out"]["kernel"] + weights["to_out"]["bias"]
    out = jax.jit(module.apply)({"params": weights}, tokens, context)
    np.testing.assert_allclose(out, by_hand, rtol=0, atol=1e-5)


def test_only_the_output_projection_has_a_bias():
    shapes = jax.tree.map(lambda leaf: leaf.shape, params(mixer()))
    assert shapes == {
        "to_q": {"kernel": (6, 8)},
        "to_kv": {"kernel": (6, 16)},
        "to_out": {"kernel": (8, 6), "bias": (6,)},
    }


def test_dropout_acts_on_the_output_and_on_the_weights_in_training_alone():
    module = mixer(out_dropout=0.5)
    wide = np.repeat(x, 60, axis=1)
    variables = {"params": params(module, wide)}
    rngs = {"dropout": jax.random.key(0)}
    plain = np.asarray(jax.jit(module.apply)(variables, wide, context))
    train = np.asarray(
        jax.jit(partial(module.apply, train=True, rngs=rngs))(variables, wide, context)
    )
    np.testing.assert_allclose((train == 0).mean(), 0.5, atol=0.1)
    np.testing.assert_allclose(train[train != 0], 2 * plain[train != 0], rtol=1e-4, atol=1e-5)
    dropping = mixer(Softmax(attention_dropout=0.5))
    train = partial(dropping.apply, train=True, rngs=rngs)
    assert np.abs(np.asarray(jax.jit(train)(variables, wide, context)) - plain).max() > 1e-2


def test_bfloat16_tokens_may_ask_a_float32_context():
    out = jax.eval_shape(
        mixer(dtype=jnp.bfloat16).apply,
        {"params": params(mixer())},
        x.astype(jnp.bfloat16),
        context,
    )
    assert out.dtype == jnp.bfloat16
