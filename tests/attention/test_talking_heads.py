"""Heads that exchange scores before the softmax and weights after it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import Softmax, TalkingHeads
from vix_flax.attention.talking_heads import mix_heads

IDENTITY = {"params": {name: np.eye(2, dtype="f4") for name in ("mix_before", "mix_after")}}


def qkv(kv_heads=2):
    """q (4, 5, 2, 8), k (4, 7, kv_heads, 8), v (4, 7, kv_heads, 3)."""
    rng = np.random.default_rng(0)
    shapes = (4, 5, 2, 8), (4, 7, kv_heads, 8), (4, 7, kv_heads, 3)
    return [rng.normal(size=shape).astype("f4") for shape in shapes]


def drawn():
    rng = np.random.default_rng(1)
    names = ("mix_before", "mix_after")
    return {"params": {name: rng.normal(size=(2, 2)).astype("f4") for name in names}}


def by_hand(params, q, k, v, scale, bias=0.0):
    """One pair of heads at a time: mixture[i, j] is what head j takes of head i."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = scale * np.einsum("bnhd,bmhd->bhnm", q, k) + bias
    talked = np.zeros_like(scores)
    for i in range(2):
        for j in range(2):
            talked[:, j] += params["mix_before"][i, j] * scores[:, i]
    weights = np.exp(talked)
    weights /= weights.sum(axis=-1, keepdims=True)
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for i in range(2):
        for j in range(2):
            mixed = params["mix_after"][i, j] * weights[:, i]
            out[:, :, j] += np.einsum("bnm,bme->bne", mixed, v[:, :, j])
    return out


@pytest.mark.parametrize(("scale", "factor"), [(None, 8**-0.5), (0.7, 0.7)])
def test_scores_are_mixed_before_the_softmax_and_weights_after(scale, factor):
    inputs, variables = qkv(), drawn()
    out = jax.jit(TalkingHeads(scale=scale).apply)(variables, *inputs)
    expected = by_hand(variables["params"], *inputs, factor)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)


def test_a_bias_is_added_before_heads_talk():
    bias = np.random.default_rng(2).normal(size=(2, 5, 7)).astype("f4")
    out = jax.jit(TalkingHeads().apply)(drawn(), *qkv(), bias=bias)
    expected = by_hand(drawn()["params"], *qkv(), 8**-0.5, np.asarray(bias))
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_heads_that_only_listen_to_themselves_are_softmax_attention(kv_heads):
    inputs = qkv(kv_heads)
    out = jax.jit(TalkingHeads().apply)(IDENTITY, *inputs)
    np.testing.assert_allclose(out, jax.jit(Softmax().apply)({}, *inputs), rtol=0, atol=1e-6)


def test_an_image_alone_is_mixed_as_among_others():
    scores = jax.random.normal(jax.random.key(0), (3, 4, 5, 6))
    mixture = jax.random.normal(jax.random.key(1), (4, 2))
    alone = jnp.concatenate([mix_heads(image[None], mixture) for image in scores])
    assert alone.shape == (3, 2, 5, 6)
    np.testing.assert_allclose(mix_heads(scores, mixture), alone, rtol=1e-5, atol=1e-6)


def test_dropped_weights_are_shared_by_the_heads_that_hear_them():
    """Dropout is before the second mixture, and in training alone."""
    core = TalkingHeads(attention_dropout=0.5)
    q = k = np.zeros((2, 30, 2, 4), "f4")
    v = np.broadcast_to(np.eye(30, dtype="f4")[:, None], (2, 30, 2, 30))  # out is the weights
    one_head = {"mix_before": np.eye(2, dtype="f4"), "mix_after": np.array([[1, 2], [0, 0]], "f4")}
    one_head = {"params": one_head}
    rngs = {"dropout": jax.random.key(0)}
    out = np.asarray(jax.jit(partial(core.apply, train=True, rngs=rngs))(one_head, q, k, v))
    np.testing.assert_allclose(out[:, :, 1], 2 * out[:, :, 0], rtol=1e-5)
    np.testing.assert_allclose((out == 0).mean(), 0.5, atol=0.05)
    np.testing.assert_allclose(out[:, :, 0].max(), 2 / 30, rtol=1e-5)
    evaluated = np.asarray(jax.jit(core.apply)(one_head, q, k, v))
    np.testing.assert_allclose(evaluated[:, :, 0], 1 / 30, rtol=1e-5)


def test_images_in_groups_equal_all_at_once(monkeypatch):
    def value_and_grads():
        def objective(at):
            variables, inputs = at
            out = TalkingHeads().apply(variables, *inputs)
            return jnp.sin(out).sum(), out

        call = jax.value_and_grad(objective, has_aux=True)
        at = (drawn(), qkv())
        return jax.jit(call)(at), str(jax.make_jaxpr(call)(at))

    whole, jaxpr = value_and_grads()
    assert "scan" not in jaxpr
    budget = {jax.default_backend(): 2 * 2 * 5 * 7 * 4}
    monkeypatch.setattr("vix_flax.attention.softmax.SCORE_BYTES", budget)
    grouped, jaxpr = value_and_grads()
    assert "scan" in jaxpr
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=4e-6), grouped, whole
    )
