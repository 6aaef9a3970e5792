from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import Chunked, Softmax


def qkv(n, m, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (2, n, 2, 8), (2, m, 2, 8), (2, m, 2, 5)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def value_and_grads(core, inputs):
    def objective(inputs):
        out = core.apply({}, *inputs)
        return jnp.sin(out).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(inputs)
    return out, grads


@pytest.mark.parametrize(
    ("n", "m", "query_chunk", "key_chunk"),
    [
        (13, 11, 4, 3),  # several of both, that divide neither
        (9, 40, 2, 512),  # one chunk of keys
    ],
)
def test_it_equals_softmax_in_values_and_gradients(n, m, query_chunk, key_chunk):
    inputs = qkv(n, m)
    out, grads = value_and_grads(Chunked(query_chunk=query_chunk, key_chunk=key_chunk), inputs)
    exact, exact_grads = value_and_grads(Softmax(), inputs)
    np.testing.assert_allclose(out, exact, rtol=0, atol=1e-6)
    for ours, theirs in zip(grads, exact_grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-6)


def test_rising_scores_need_the_running_maximum():
    q, k, v = qkv(6, 12)
    k = k * jnp.linspace(0, 200, 12)[None, :, None, None]
    core = Chunked(query_chunk=3, key_chunk=5)
    out, exact = (jax.jit(core.apply)({}, q, k, v) for core in (core, Softmax()))
    np.testing.assert_allclose(out, exact, rtol=0, atol=1e-5)


@cache
def attention_weights(core):
    """key -> weights (2, 24, 2, 24), by values that tell the keys apart."""
    q, k, _ = qkv(24, 24)
    v = jnp.broadcast_to(jnp.eye(24)[:, None], (2, 24, 2, 24))
    rngs = lambda key: {"dropout": key}
    call = jax.jit(lambda key: core.apply({}, 0.3 * q, k, v, train=True, rngs=rngs(key)))
    return lambda seed: np.asarray(call(jax.random.key(seed)))


DROPPING = Chunked(query_chunk=8, key_chunk=6, attention_dropout=0.25)


def test_dropout_drops_at_its_rate_and_shares_the_mask_with_the_denominator():
    weights = attention_weights(DROPPING)(0)
    np.testing.assert_allclose((weights == 0).mean(), 0.25, atol=0.04)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
    assert (weights != attention_weights(DROPPING)(1)).any()


def test_dropout_differs_between_chunks_images_and_heads():
    kept = attention_weights(DROPPING)(0) > 0
    chunks = kept.reshape(2, 3, 8, 2, 4, 6).transpose(0, 3, 1, 4, 2, 5).reshape(-1, 8 * 6)
    assert len(np.unique(chunks, axis=0)) == len(chunks)


def test_dropout_keeps_the_mean():
    mean = np.mean([attention_weights(DROPPING)(seed) for seed in range(300)], axis=0)
    np.testing.assert_allclose(mean, attention_weights(Softmax())(0), rtol=0, atol=0.012)


def test_evaluation_does_not_drop():
    inputs = qkv(7, 7)
    core = Chunked(query_chunk=4, key_chunk=3, attention_dropout=0.9)
    out, exact = (jax.jit(core.apply)({}, *inputs) for core in (core, Softmax()))
    np.testing.assert_allclose(out, exact, rtol=0, atol=1e-6)


def test_gradients_under_dropout_use_the_mask_of_the_values():
    """`out` is linear in v, so differences are exact: the recomputed mask must be the first one."""
    q, k, v = qkv(6, 9)
    core = Chunked(query_chunk=4, key_chunk=4, attention_dropout=0.4)

    @jax.jit
    @jax.value_and_grad
    def objective(v):
        out = core.apply({}, q, k, v, train=True, rngs={"dropout": jax.random.key(3)})
        return (out * q[..., :5]).sum()

    direction = qkv(6, 9, seed=1)[2]
    (before, gradient), (after, _) = objective(v), objective(v + direction)
    np.testing.assert_allclose(after - before, (gradient * direction).sum(), rtol=1e-4)


@pytest.mark.parametrize("field", ["query_chunk", "key_chunk"])
def test_a_chunk_needs_a_token(field):
    with pytest.raises(ValueError, match=f"{field}=0 must be a positive int"):
        Chunked(**{field: 0})
