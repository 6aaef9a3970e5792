"""The encoder of x-transformers 0.10: attention scores carried from layer to layer, gated MLPs.

RealFormer (He et al. 2020, arXiv:2012.11747) and GLU variants (Shazeer 2020, arXiv:2002.05202).
`encoder(x, train=False)`: (b, n, dim) -> (b, n, dim)
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.attention.softmax import attention_scores
from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers import Dense, Dropout, GluMlp, LayerNorm, Mlp, ModuleDef


class CarriedAttention(nn.Module):
    """Softmax attention that adds the scores of the layer before, and hands its own on.

    x `(b, n, c)`, scores `(b, h, n, n)` float32 or None -> the same two. Memory O(n²·h).
    """

    heads: int
    dim_head: int = 64
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: jax.Array, before: jax.Array | None, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        b, n, c = x.shape
        h, d = self.heads, self.dim_head
        qkv = Dense(3 * h * d, False, self.dtype, name="to_qkv")(x).reshape(b, n, 3, h, d)
        scores = attention_scores(qkv[:, :, 0] * d**-0.5, qkv[:, :, 1])
        scores = scores if before is None else scores + before
        weights = Dropout(self.dropout)(nn.softmax(scores), train)
        out = jnp.einsum("bhnm,bmhd->bnhd", weights.astype(x.dtype), qkv[:, :, 2])
        return Dense(c, dtype=self.dtype, name="to_out")(out.reshape(b, n, h * d)), scores


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); scores are taken and handed on."""

    heads: int
    dim_head: int
    mlp_dim: int
    mlp: ModuleDef = Mlp
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0
    dtype: Any = None

    stands_alone: ClassVar[bool] = True  # its parts are its own: see `training/blocks_once.py`

    @nn.compact
    def __call__(
        self, x: jax.Array, before: jax.Array | None, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        attention = CarriedAttention(
            self.heads, self.dim_head, self.attn_dropout, self.dtype, name="mixer"
        )
        normed = LayerNorm(dtype=self.dtype, name="norm1")(x)
        mixed, scores = attention(normed, before, train)
        x = x + mixed
        mlp = self.mlp(
            self.mlp_dim,
            dropout=self.ff_dropout,
            drops_output=False,
            dtype=self.dtype,
            name="mlp",
        )
        return x + mlp(LayerNorm(dtype=self.dtype, name="norm2")(x), train), scores


class Encoder(nn.Module, kw_only=True):
    """`x_transformers.Encoder` with its keywords; no last norm, as in that version.

    Attributes:
        dim, depth, heads, attn_dim_head: widths, and the number of layers.
        ff_mult, ff_glu: hidden units of the MLPs over `dim`, and whether they are gated.
        residual_attn: scores are carried from layer to layer.
        attn_dropout, ff_dropout: on the attention's weights, and in the MLPs.
    """

    dim: int
    depth: int
    heads: int = 8
    attn_dim_head: int = 64
    ff_mult: int = 4
    ff_glu: bool = False
    residual_attn: bool = False
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0
    dtype: Any = None

    def __post_init__(self):
        require_positive_ints(self, "dim", "depth", "heads", "attn_dim_head", "ff_mult")
        require_rates(self, "attn_dropout", "ff_dropout")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`(b, n, dim) -> (b, n, dim)`."""
        scores = None
        for i in range(self.depth):
            block = EncoderBlock(
                self.heads,
                self.attn_dim_head,
                self.ff_mult * self.dim,
                GluMlp if self.ff_glu else Mlp,
                self.attn_dropout,
                self.ff_dropout,
                self.dtype,
                name=f"blocks_{i}",
            )
            x, scores = block(x, scores if self.residual_attn else None, train)
        return x
