from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import flash
from vix_flax.attention.softmax import attention_weights
from vix_flax.attention.tiled import tiled_attention
from vix_flax.flops import count_flops

SHAPES = [(64, 64, 4), (65, 65, 4), (64, 65, 4), (7, 130, 1)]  # queries, keys, heads of the keys


def arrays(queries, keys, key_heads, dtype=jnp.float32):
    shapes = [(2, queries, 4, 16), *[(2, keys, key_heads, 16)] * 2, (2, queries, 4, 16)]
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def plain(q, k, v):
    v = jnp.broadcast_to(v, (*v.shape[:2], q.shape[2], v.shape[-1]))
    return jnp.einsum("bhnm,bmhe->bnhe", attention_weights(q, k), v)


def with_gradients(attend, q, k, v, gradient):
    out, back = jax.vjp(attend, q, k, v)
    return [out, *back(gradient)]


def assert_the_same(attend, given, tolerance):
    found = jax.jit(lambda *given: with_gradients(attend, *given))(*given)
    wide = [x.astype(jnp.float32) for x in given]
    for a, b in zip(found, with_gradients(plain, *wide), strict=True):
        assert a.dtype == given[0].dtype
        error = jnp.linalg.norm(a.astype(jnp.float32) - b) / jnp.linalg.norm(b)
        assert error < tolerance


@pytest.mark.parametrize("shape", SHAPES)
def test_odd_lengths_are_padded(shape, monkeypatch):
    monkeypatch.setattr(flash, "IMPLEMENTATION", "xla")  # which runs anywhere
    with jax.default_matmul_precision("highest"):  # a GPU's default is TF32
        assert_the_same(flash.flash_attention, arrays(*shape), 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_is_softmax_attention(shape):
    given = arrays(*shape, jnp.bfloat16)
    assert flash.flash_applies(*given[:3])
    assert_the_same(flash.flash_attention, given, 0.02)
    text = jax.jit(tiled_attention).lower(*given[:3]).compile().as_text()
    assert "__cudnn$fmha" in text
    queries, keys = (x.shape[1] + x.shape[1] % 2 for x in given[:2])
    traced = jax.make_jaxpr(partial(with_gradients, flash.flash_attention))(*given)
    assert count_flops(traced) == (2 + 5) * 2 * (2 * 4 * queries * keys * 16)


def test_applies_to_what_the_kernel_takes(monkeypatch):
    half = arrays(8, 8, 4, jnp.bfloat16)[:3]
    assert flash.flash_applies(*half) == (jax.default_backend() == "gpu")
    monkeypatch.setattr(flash, "_has_kernel", lambda: True)
    assert flash.flash_applies(*half)
    assert not flash.flash_applies(*arrays(8, 8, 4)[:3])  # float32
    narrower = half[2][..., :8]
    assert not flash.flash_applies(half[0], half[1], narrower)
    assert not flash.flash_applies(*(x[..., :12] for x in half))  # no multiple of 8
