"""Exact scaled dot-product attention: every query weighs every key.

Vaswani et al. 2017, arXiv:1706.03762. Cost O(n·m·d) time.
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.checks import require_rates

# Scores larger than this are formed a few images at a time: on a CPU, writing them all out and
# reading them back costs more than recomputing them in the backward pass.
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
        keys = jax.random.split(self.make_rng("dropout"), b) if rate else jnp.zeros((b,))
        mix_scores, mix_weights = self.head_mixing(h)

        def attend(q, k, v, key):
            scores = attention_scores(q * scale, k)
            if bias is not None:
                scores = scores + bias
            weights = nn.softmax(mix_scores(scores), axis=-1)
            if rate:
                keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, weights.shape[1:]))
                weights = jnp.where(keep(key), weights / (1 - rate), 0)
            weights = mix_weights(weights).astype(v.dtype)
            if v.shape[2] == 1:
                return jnp.einsum("bhnm,bme->bnhe", weights, v[:, :, 0])
            return jnp.einsum("bhnm,bmhe->bnhe", weights, v)

        group = _images_at_once(b, h * n * k.shape[1] * 4)
        if group == b:
            return attend(q, k, v, keys)
        grouped = [x.reshape(b // group, group, *x.shape[1:]) for x in (q, k, v, keys)]
        out = jax.lax.map(lambda x: jax.checkpoint(attend)(*x), tuple(grouped))
        return out.reshape(b, *out.shape[2:])

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


def _images_at_once(batch: int, bytes_per_image: int) -> int:
    """The largest divisor of the batch whose scores stay within the budget (at least 1)."""
    budget = SCORE_BYTES.get(jax.default_backend(), SCORE_BYTES_ELSEWHERE)
    most = max(1, min(batch, budget // bytes_per_image))
    return next(group for group in range(most, 0, -1) if batch % group == 0)
