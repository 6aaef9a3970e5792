"""Self-attention: dense projections to queries, keys and values around any attention core.

(b, *space, c) -> (b, *space, c); all positions of `space` attend to each other. A `bias`, for cores
that take one, is added to the scores.
"""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.layers.dense import Dense
from vix_flax.layers.dropout import Dropout
from vix_flax.layers.rotary import rotary_angles, rotate


class SelfAttention(nn.Module):
    """Projects to `heads` heads of `dim_head`, lets `core` combine them, projects back.

    The projections are one dense layer `to_qkv` whatever the core, so that a trained core can be
    exchanged for another.

    Attributes:
        core: an attention core, e.g. `Nystrom(num_landmarks=16)`.
        qkv_bias, out_bias: biases of the projections.
        project_out: False leaves the output projection out (ViT with one head of full width).
        one_kv_head: a single key/value head for all query heads (arXiv:1911.02150).
        share_kv: keys are used as values, too.
        rotary: None, "raster" or "axial": the layout of rotary positions. With `share_kv`, values
            are the keys before they are turned.
        grid: (rows, columns) of the map, for "axial" on tokens with a class token in front.
        out_dropout: dropout after the output projection.
        initializer: of the projections, see `Dense`.
    """

    core: nn.Module
    heads: int
    dim_head: int = 64
    qkv_bias: bool = False
    out_bias: bool = True
    project_out: bool = True
    one_kv_head: bool = False
    share_kv: bool = False
    rotary: str | None = None
    grid: tuple[int, int] | None = None
    out_dropout: float = 0.0
    dtype: Any = None
    initializer: str = "fan_in"

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, bias: jax.Array | None = None
    ) -> jax.Array:
        b, *space, c = x.shape
        d, h = self.dim_head, self.heads
        kv_heads = 1 if self.one_kv_head else h
        head_counts = [h, kv_heads] if self.share_kv else [h, kv_heads, kv_heads]
        qkv = Dense(
            sum(head_counts) * d, self.qkv_bias, self.dtype, self.initializer, name="to_qkv"
        )(x)
        qkv = qkv.reshape(b, -1, sum(head_counts), d)
        q, k = qkv[:, :, :h], qkv[:, :, h : h + kv_heads]
        v = k if self.share_kv else qkv[:, :, h + kv_heads :]

        if self.rotary:
            grid = tuple(space) if len(space) == 2 else self.grid
            angles = rotary_angles(self.rotary, q.shape[1], d, grid)
            q, k = rotate(q, angles), rotate(k, angles)
        given = {} if bias is None else {"bias": bias}
        out = self.core(q, k, v, train=train, **given).reshape(b, *space, h * d)
        if not self.project_out:
            return out
        out = Dense(c, self.out_bias, self.dtype, self.initializer, name="to_out")(out)
        return Dropout(self.out_dropout)(out, train)


def needs_projection(heads: int, dim_head: int, dim: int) -> bool:
    """ViT's rule, as published: one head as wide as the tokens needs no output projection."""
    return not (heads == 1 and dim_head == dim)
