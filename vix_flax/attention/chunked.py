"""Exact softmax attention without the n × m scores: chunks of queries against chunks of keys.

Rabe & Staats 2021, "Self-attention does not need O(n²) memory", arXiv:2112.05682.
Cost O(n·m·d) time, O(n·(d + e) + query_chunk·key_chunk) memory.
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers.dropout import drop


class Chunked(nn.Module):
    """Softmax attention by running maximum and sum; the chunk sizes never change the result.

    `attention_dropout` acts on the unnormalised weights, before they are summed: numerator and
    denominator share the mask, as published.
    """

    query_chunk: int = 256
    key_chunk: int = 512
    attention_dropout: float = 0.0
    dtype: Any = None

    rows_are_independent: ClassVar[bool] = True

    def __post_init__(self):
        require_positive_ints(self, "query_chunk", "key_chunk")
        require_rates(self, "attention_dropout")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, q: jax.Array, k: jax.Array, v: jax.Array, *, train: bool = False
    ) -> jax.Array:
        n, m, d = q.shape[1], k.shape[1], q.shape[-1]
        rate = self.attention_dropout if train else 0.0
        key = self.make_rng("dropout") if rate else None
        q, _ = _split(q * d**-0.5, self.query_chunk)
        k, keys = _split(jnp.broadcast_to(k, (*k.shape[:2], *q.shape[-2:])), self.key_chunk)
        v, _ = _split(jnp.broadcast_to(v, (*v.shape[:2], q.shape[-2], v.shape[-1])), self.key_chunk)

        # Both bodies are recomputed in the backward pass: only chunk results are kept.
        @jax.checkpoint
        def one_key_chunk(carry, chunk):
            (i, q, out, total, top), (j, k, v) = carry, chunk
            scores = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32)
            real = j * keys + jnp.arange(keys) < m
            scores = jnp.where(real, scores, -jnp.inf)
            new_top = jnp.maximum(top, scores.max(axis=-1))
            weights = jnp.exp(scores - new_top[..., None])
            if rate:
                mask_key = jax.random.fold_in(jax.random.fold_in(key, i), j)
                weights = drop(weights, mask_key, rate)
            shrink = jnp.exp(top - new_top)
            part = jnp.einsum(
                "bhnm,bmhe->bhne", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
            )
            out = out * shrink[..., None] + part
            return (i, q, out, total * shrink + weights.sum(axis=-1), new_top), None

        @jax.checkpoint
        def one_query_chunk(chunk):
            i, q = chunk
            b, c, h, _ = q.shape
            empty = (jnp.zeros((b, h, c, v.shape[-1])), jnp.zeros((b, h, c)))
            start = (i, q, *empty, jnp.full((b, h, c), -jnp.inf))
            (_, _, out, total, _), _ = jax.lax.scan(
                one_key_chunk, start, (jnp.arange(len(k)), k, v)
            )
            return (out / (total[..., None] + 1e-8)).astype(v.dtype)

        out = jax.lax.map(one_query_chunk, (jnp.arange(len(q)), q))
        return rearrange(out, "c b h n e -> b (c n) h e")[:, :n]


def _split(x: jax.Array, size: int) -> tuple[jax.Array, int]:
    """(b, n, …) -> (chunks, b, size, …), zeros behind the last token; and the size used."""
    n = x.shape[1]
    size = min(size, n)
    chunks = -(-n // size)
    x = jnp.pad(x, ((0, 0), (0, chunks * size - n), (0, 0), (0, 0)))
    return rearrange(x, "b (c n) h d -> c b n h d", n=size), size
