"""CCX: the compact convolutional transformer, with the attention as a field.

Hassani et al. 2021 (CCT), arXiv:2104.05704; with linear attention: arXiv:2107.02239.
(b, H, W, C) -> (b, num_classes)
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers import (
    ConvTokenizer,
    Dense,
    Dropout,
    LayerNorm,
    SequencePool,
    build,
    sine_positions,
)
from vix_flax.mixers import SelfAttention
from vix_flax.models.backbone import AttentionBackbone
from vix_flax.models.block import RenormBlock
from vix_flax.models.image import check_image, pair
from vix_flax.suggest import did_you_mean

POSITIONS = ("learnable", "sine", "none")


class CCX(AttentionBackbone, kw_only=True):
    """Convolutional tokenizer, transformer, pooling over the sequence; keywords are CCT's.

    Fields beyond these are those of `AttentionBackbone`.

    Attributes:
        image_size: an int or (height, width).
        embedding_dim, num_layers, num_heads: width, number of blocks, heads.
        mlp_ratio: hidden units of the MLPs over `embedding_dim`.
        n_conv_layers, kernel_size, stride, padding, pooling_kernel_size, pooling_stride,
            pooling_padding: of the tokenizer; `stride` is an int or one for each layer.
        positional_embedding: "learnable", "sine" or "none".
        dropout_rate: of tokens, projections and MLPs.
        attention_dropout: of the attention's weights, where the attention has any.
        stochastic_depth: rate of the last block; it grows linearly from 0 at the first.
        dim_head: features of a head; None: `embedding_dim / num_heads`.
    """

    image_size: int | tuple[int, int]
    embedding_dim: int
    num_layers: int
    num_heads: int
    mlp_ratio: float = 4.0
    n_conv_layers: int = 1
    kernel_size: int = 7
    stride: int | tuple[int, ...] = 2
    padding: int = 3
    pooling_kernel_size: int = 3
    pooling_stride: int = 2
    pooling_padding: int = 1
    positional_embedding: str = "learnable"
    dropout_rate: float = 0.0
    attention_dropout: float = 0.1
    stochastic_depth: float = 0.1
    dim_head: int | None = None

    qkv_bias: ClassVar[bool] = False
    projection_drops: ClassVar[bool] = True  # `dropout_rate` acts on the attention's output
    mlp_drops: ClassVar[bool] = True  # … and in the MLPs
    initializer: ClassVar[str] = "trunc_normal"

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        widths = ("embedding_dim", "num_layers", "num_heads", "n_conv_layers", "dim_head")
        require_positive_ints(self, *widths)
        require_rates(self, "dropout_rate", "attention_dropout", "stochastic_depth")
        if self.dim_head is None and self.embedding_dim % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide embedding_dim={self.embedding_dim}: "
                "use heads that do, or give dim_head"
            )
        if self.positional_embedding not in POSITIONS:
            raise ValueError(
                f"positional_embedding={self.positional_embedding!r} is unknown"
                + did_you_mean(str(self.positional_embedding), POSITIONS)
            )
        self.grid  # noqa: B018  (raises if nothing is left of the image)

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return self.embedding_dim

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the map of tokens."""
        return build(ConvTokenizer, self).grid(pair("image_size", self.image_size))

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each map that parameters depend on the size of, in order."""
        return (self.grid,)

    def _mixer(self):
        return build(
            SelfAttention,
            self,
            core=self.core(),
            heads=self.num_heads,
            dim_head=self.dim_head or self.embedding_dim // self.num_heads,
            out_dropout=self.dropout_rate if self.projection_drops else 0.0,
        )

    def setup(self):
        """Builds the parts."""
        rows, columns = self.grid
        shape = (1, rows * columns, self.embedding_dim)
        self.tokenizer = build(ConvTokenizer, self)
        if self.positional_embedding == "learnable":
            positions = nn.initializers.truncated_normal(0.2, lower=-10.0, upper=10.0)
            self.pos_embedding = self.param("pos_embedding", positions, shape)
        self.emb_drop = Dropout(self.dropout_rate)
        block = self.rematted(RenormBlock)
        self.blocks = [
            build(
                block,
                self,
                mixer=self._mixer(),
                mlp_dim=int(self.embedding_dim * self.mlp_ratio),
                dropout=self.dropout_rate if self.mlp_drops else 0.0,
                drop_path=self.stochastic_depth * i / max(self.num_layers - 1, 1),
            )
            for i in range(self.num_layers)
        ]
        self.norm = LayerNorm(dtype=self.dtype)
        self.pool = build(SequencePool, self)
        if self.num_classes:
            self.classifier = Dense(
                self.num_classes, dtype=self.dtype, initializer=self.initializer
            )

    def tokens(self, img: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, H, W, C) -> (b, n, embedding_dim)`: convolved, positions added."""
        check_image(img.shape, self.channels, pair("image_size", self.image_size))
        x = self.tokenizer(img)
        x = x.reshape(len(x), -1, self.embedding_dim)
        if self.positional_embedding == "learnable":
            x = x + self.pos_embedding.astype(x.dtype)
        elif self.positional_embedding == "sine":
            x = x + jnp.asarray(sine_positions(*x.shape[1:]), x.dtype)
        return self.emb_drop(x, train)

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, n, embedding_dim) -> (b, n, embedding_dim)`: through all blocks, then normed."""
        for block in self.blocks:
            tokens = block(tokens, train)
        return self.norm(tokens)

    def pooled(self, tokens: jax.Array) -> jax.Array:
        """`(b, n, embedding_dim) -> (b, embedding_dim)`: weighed by learned scores."""
        return self.pool(tokens)

    def head(self, features: jax.Array) -> jax.Array:
        """`(b, embedding_dim) -> (b, num_classes)` float32."""
        return self.classifier(features).astype(jnp.float32)
