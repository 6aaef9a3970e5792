"""Exact scaled dot-product attention: every query weighs every key.

Vaswani et al. 2017, arXiv:1706.03762. Cost O(n·m·d) time.
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.attention.flash import flash_applies
from vix_flax.attention.tiled import images_at_once, tiled_attention
from vix_flax.checks import require_rates
from vix_flax.layers.dropout import drop

# Scores larger than this are formed a few images at a time, or in tiles where nothing is done to
# them but the softmax: on a CPU, writing them all out and reading them back costs more than
# recomputing them in the backward pass.
SCORE_BYTES = {"cpu": 2**24}
SCORE_BYTES_ELSEWHERE = 2**30

Mix = Callable[[jax.Array], jax.Array]


class Softmax(nn.Module):
    """Softmax attention; `scale` multiplies the scores (None: 1/√d).

    `attention_dropout` acts on the weights. One key/value head serves all query heads if k and v
    have just one. `bias`, broadcast to (h, n, m), is added to the scaled scores.
    """

    scale: float | None = None
    attention_dropout: float = 0.0
    dtype: Any = None

    takes_bias: ClassVar[bool] = True
    rows_are_independent: ClassVar[bool] = True  # a query's result does not depend on the others

    def __post_init__(self):
        require_rates(self, "attention_dropout")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        *,
        train: bool = False,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        b, n, h, d = q.shape
        scale = d**-0.5 if self.scale is None else self.scale
        rate = self.attention_dropout if train else 0.0
        keys = jax.random.split(self.make_rng("dropout"), b) if rate else None
        mix_scores, mix_weights = self.head_mixing(h)
        unmixed = mix_scores is _as_it_is and mix_weights is _as_it_is

        def attend(q, k, v, keys, bias):
            scores = attention_scores(q * scale, k)
            if bias is not None:
                scores = scores + bias
            scores = mix_scores(scores)
            top = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
            weights = jnp.exp(scores - top)
            total = weights.sum(axis=-1, keepdims=True)
            if not unmixed:
                weights, total = weights / total, 1.0
            if rate:
                weights = jax.vmap(partial(drop, rate=rate))(weights, keys)
            weights = mix_weights(weights).astype(v.dtype)
            if v.shape[2] == 1:
                out = jnp.einsum("bhnm,bme->bhne", weights, v[:, :, 0])
            else:
                out = jnp.einsum("bhnm,bmhe->bhne", weights, v)
            # Divided this late: results are n × e, weights n × m.
            return (out / total).astype(v.dtype).swapaxes(1, 2)

        bytes_per_image = h * n * k.shape[1] * 4
        untouched = unmixed and not rate and bias is None
        if untouched and (b * bytes_per_image > _budget() or flash_applies(q, k, v)):
            return tiled_attention(q * scale, k, v)
        group = images_at_once(b, bytes_per_image, _budget())
        if group == b:
            return _by_rows(attend, bytes_per_image, q, k, v, keys, bias)
        # Every n-th image makes a group: of a batch cut over devices, each has its share of it.
        grouped = jax.tree.map(
            lambda x: x.reshape(group, b // group, *x.shape[1:]).swapaxes(0, 1), (q, k, v, keys)
        )
        one_group = lambda x: _by_rows(attend, bytes_per_image, *x, bias)
        out = jax.lax.map(jax.checkpoint(one_group), grouped)
        return out.swapaxes(0, 1).reshape(b, *out.shape[2:])

    def head_mixing(self, heads: int) -> tuple[Mix, Mix]:
        """What is done to the scores before the softmax and to the weights after: nothing here.

        Both take and give float32 `(b, h, n, m)`.
        """
        return _as_it_is, _as_it_is


def _as_it_is(x: jax.Array) -> jax.Array:
    return x


def attention_scores(q: jax.Array, k: jax.Array) -> jax.Array:
    """q kᵀ, float32: q (b, n, h, d), k (b, m, h or 1, d) -> (b, h, n, m)."""
    if k.shape[2] == 1:
        return jnp.einsum("bnhd,bmd->bhnm", q, k[:, :, 0], preferred_element_type=jnp.float32)
    return jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32)


def attention_weights(q: jax.Array, k: jax.Array) -> jax.Array:
    """softmax(q kᵀ), float32: q (b, n, h, d) scaled before, k (b, m, h or 1, d) -> (b, h, n, m)."""
    return nn.softmax(attention_scores(q, k), axis=-1)


def _budget() -> int:
    return SCORE_BYTES.get(jax.default_backend(), SCORE_BYTES_ELSEWHERE)


def _by_rows(attend, bytes_per_image, q, k, v, keys, bias):
    """`attend`, on some of the queries at a time if the scores of a single image are too many."""
    n = q.shape[1]
    chunks = min(n, -(-bytes_per_image // _budget()))
    if chunks == 1:
        return attend(q, k, v, keys, bias)
    rows = -(-n // chunks)
    chunks = -(-n // rows)

    def split(x, axis):  # (…, n, …) -> (chunks, …, rows, …), zeros behind the last
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, chunks * rows - n)
        parts = jnp.split(jnp.pad(x, pad), chunks, axis)
        return jnp.stack(parts)

    each_has_its_own = bias is not None and bias.ndim > 1 and bias.shape[-2] == n
    biases = split(bias, bias.ndim - 2) if each_has_its_own else None

    @jax.checkpoint
    def one_chunk(given):
        i, q, own = given
        drawn = keys if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, i))(keys)
        return attend(q, k, v, drawn, own if each_has_its_own else bias)

    out = jax.lax.map(one_chunk, (jnp.arange(chunks), split(q, 1), biases))
    return jnp.moveaxis(out, 0, 1).reshape(len(q), chunks * rows, *out.shape[3:])[:, :n]
