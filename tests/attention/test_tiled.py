import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention.softmax import attention_weights
from vix_flax.attention.tiled import tiled_attention


def qkv(queries=7, keys=9, kv_heads=2, dtype=jnp.float32):
    """q (6, queries, 2, 8), k (6, keys, kv_heads, 8), v (6, keys, kv_heads, 5)."""
    rng = np.random.default_rng(0)
    shapes = (6, queries, 2, 8), (6, keys, kv_heads, 8), (6, keys, kv_heads, 5)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def plain(q, k, v):
    """The same with all scores at once, differentiated by JAX."""
    weights = attention_weights(q, k)
    v = jnp.broadcast_to(v, (*v.shape[:2], q.shape[2], v.shape[-1]))
    return jnp.einsum("bhnm,bmhe->bnhe", weights, v.astype(jnp.float32))


def value_and_grads(attend, inputs):
    def objective(inputs):
        out = attend(*inputs)
        return jnp.sin(out.astype(jnp.float32)).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(inputs)
    return out, grads


@pytest.fixture
def rows(monkeypatch):
    """Sets how many rows of 9 scores a tile has."""

    def set_rows(count):
        size = {jax.default_backend(): count * 9 * 4}
        monkeypatch.setattr("vix_flax.attention.tiled.TILE_BYTES", size)

    return set_rows


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("count", [1, 3, 7, 20, 10**6])  # rows of a tile, of 7 queries an image
def test_outputs_and_gradients_are_those_of_the_plain_form(rows, count, kv_heads):
    inputs = qkv(kv_heads=kv_heads)
    out, grads = value_and_grads(plain, inputs)
    rows(count)
    tiled, tiled_grads = value_and_grads(tiled_attention, inputs)
    np.testing.assert_allclose(tiled, out, rtol=0, atol=1e-5)
    for ours, theirs in zip(tiled_grads, grads, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_large_scores_do_not_overflow(rows):
    q, k, v = qkv()
    rows(3)
    np.testing.assert_allclose(
        jax.jit(tiled_attention)(100 * q, k, v), plain(100 * q, k, v), rtol=0, atol=1e-5
    )


def test_no_array_is_larger_than_the_inputs_or_a_tile(rows):
    inputs = qkv(queries=63)
    rows(7)
    program = jax.make_jaxpr(jax.grad(lambda x: tiled_attention(*x).sum()))(inputs)

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (var.aval.size for var in equation.outvars)
            for inner in jax.tree.leaves(list(equation.params.values())):
                if hasattr(inner, "jaxpr"):
                    yield from sizes(inner.jaxpr)

    assert max(sizes(program.jaxpr)) <= max(x.size for x in inputs) < 6 * 2 * 63 * 9


def test_bfloat16_keeps_the_dtype_and_comes_near(rows):
    inputs = qkv(dtype=jnp.bfloat16)
    rows(3)
    out, grads = value_and_grads(tiled_attention, inputs)
    assert {x.dtype for x in (out, *grads)} == {jnp.dtype(jnp.bfloat16)}
    expected, _ = value_and_grads(plain, [x.astype(jnp.float32) for x in inputs])
    np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=0, atol=0.03)
