"""Heads that exchange weights behind the softmax, normed over the heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import ReAttention


def qkv(kv_heads=2):
    """q (4, 5, 2, 8), k (4, 7, kv_heads, 8), v (4, 7, kv_heads, 3)."""
    rng = np.random.default_rng(0)
    shapes = (4, 5, 2, 8), (4, 7, kv_heads, 8), (4, 7, kv_heads, 3)
    return [rng.normal(size=shape).astype("f4") for shape in shapes]


def drawn(heads=2):
    rng = np.random.default_rng(1)
    shapes = {"mix_after": (heads, heads), "norm_scale": (heads,), "norm_bias": (heads,)}
    return {"params": {name: rng.normal(size=s).astype("f4") for name, s in shapes.items()}}


def by_hand(params, q, k, v, bias=0.0):
    """Mixture[i, j] is what head j takes of head i; every weight is normed over the heads."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    weights = np.exp(8**-0.5 * np.einsum("bnhd,bmhd->bhnm", q, k) + bias)
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = np.zeros_like(weights)
    for i in range(2):
        for j in range(2):
            mixed[:, j] += params["mix_after"][i, j] * weights[:, i]
    mean = (mixed[:, 0] + mixed[:, 1]) / 2
    variance = ((mixed[:, 0] - mean) ** 2 + (mixed[:, 1] - mean) ** 2) / 2
    out = np.zeros((*q.shape[:3], v.shape[-1]))
    for j in range(2):
        normed = (mixed[:, j] - mean) / np.sqrt(variance + 1e-5)
        normed = normed * params["norm_scale"][j] + params["norm_bias"][j]
        out[:, :, j] = np.einsum("bnm,bme->bne", normed, v[:, :, j])
    return out


def test_weights_are_mixed_and_normed_over_the_heads():
    out = jax.jit(ReAttention().apply)(drawn(), *qkv())
    np.testing.assert_allclose(out, by_hand(drawn()["params"], *qkv()), rtol=0, atol=2e-5)


def test_a_bias_is_added_to_the_scores():
    bias = np.random.default_rng(2).normal(size=(1, 5, 7)).astype("f4")
    out = jax.jit(ReAttention().apply)(drawn(), *qkv(), bias=bias)
    expected = by_hand(drawn()["params"], *qkv(), np.asarray(bias))
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-5)


def test_it_starts_as_a_plain_norm_over_the_heads():
    variables = jax.jit(ReAttention().init)(jax.random.key(0), *qkv())["params"]
    np.testing.assert_array_equal(variables["norm_scale"], np.ones(2))
    np.testing.assert_array_equal(variables["norm_bias"], np.zeros(2))


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_heads_that_agree_come_out_as_the_norms_bias(kv_heads):
    """What is left of equal heads is the bias: the sum of the values, times it."""
    q, k, v = (x[:, :, :1] for x in qkv())
    q = np.repeat(q, 2, axis=2)
    k, v = (np.repeat(x, kv_heads, axis=2) for x in (k, v))
    own = {"mix_after": np.eye(2, dtype="f4"), "norm_bias": np.array([1, -2], "f4")}
    params = {**drawn()["params"], **own}
    out = jax.jit(ReAttention().apply)({"params": params}, q, k, v)
    total = np.asarray(v[:, :, 0]).sum(axis=1)[:, None]
    np.testing.assert_allclose(out[:, :, 0], np.repeat(total, 5, axis=1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(out[:, :, 1], np.repeat(-2 * total, 5, axis=1), rtol=0, atol=1e-5)


def test_dropout_is_before_the_mixture_and_in_training_alone():
    core = ReAttention(attention_dropout=0.5)
    q, k, _ = qkv()
    v = np.broadcast_to(np.eye(7, dtype="f4")[:, None], (4, 7, 2, 7))  # out is the weights
    plain = jax.jit(core.apply)(drawn(), q, k, v)  # needs no rng
    np.testing.assert_allclose(plain, jax.jit(ReAttention().apply)(drawn(), q, k, v), rtol=1e-6)
    train = jax.vmap(lambda key: core.apply(drawn(), q, k, v, train=True, rngs={"dropout": key}))
    first, second = np.asarray(jax.jit(train)(jax.random.split(jax.random.key(0), 2)))
    assert np.abs(first - second).max() > 0.1
    # Dropped behind the norm a weight would be 0; dropped before, it is what the norm makes of it.
    assert (first != 0).all()


def test_images_in_groups_equal_all_at_once(monkeypatch):
    def value_and_grads():
        def objective(at):
            variables, inputs = at
            out = ReAttention().apply(variables, *inputs)
            return jnp.sin(out).sum(), out

        return jax.jit(jax.value_and_grad(objective, has_aux=True))((drawn(), qkv()))

    whole = value_and_grads()
    budget = {jax.default_backend(): 2 * 5 * 7 * 4}
    monkeypatch.setattr("vix_flax.attention.softmax.SCORE_BYTES", budget)
    assert "scan" in str(jax.make_jaxpr(ReAttention().apply)(drawn(), *qkv()))
    grouped = value_and_grads()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), grouped, whole)
