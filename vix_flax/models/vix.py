"""ViX: one plain vision transformer, whose embedding, positions, mixer and attention are fields.

Jeevan & Sethi 2021 (ViX), arXiv:2107.02239; Dosovitskiy et al. 2020 (ViT), arXiv:2010.11929.
(b, H, W, C) -> (b, num_classes)
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers import (
    Dense,
    Dropout,
    LayerNorm,
    ModuleDef,
    PatchEmbed,
    build,
    field_names,
    prepend_token,
)
from vix_flax.layers.rotary import check_rotary_width
from vix_flax.mixers import SelfAttention
from vix_flax.models.backbone import AttentionBackbone
from vix_flax.models.block import Block
from vix_flax.models.image import check_image, pair
from vix_flax.suggest import did_you_mean

POSITIONS = {"learned": None, "rotary": "raster", "rotary_axial": "axial", "none": None}


class Head(nn.Module):
    """LayerNorm (unless the tokens were normed) and a dense layer: `(b, dim) -> (b, classes)`."""

    num_classes: int
    norm: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        if self.norm:
            features = LayerNorm(dtype=self.dtype, name="norm")(features)
        logits = Dense(self.num_classes, dtype=self.dtype, name="dense")(features)
        return logits.astype(jnp.float32)


class ViX(AttentionBackbone, kw_only=True):
    """Vision transformer in four verbs: `tokens(img)`, `encode(tokens)`, `pooled(tokens)`, `head`.

    The parts take from the model each field they share by name (`layers/build.py`). Fields beyond
    these are those of `AttentionBackbone`.

    Attributes:
        image_size, patch_size: an int or (height, width).
        dim, depth, heads, dim_head, mlp_dim: widths, and the number of blocks.
        pool: "cls" takes the class token, "mean" the mean over all tokens, class token included.
        dropout: in the MLPs, and where the published variant has it in the attention.
        emb_dropout: after positions are added.
        stochastic_depth: rate of the last block; it grows linearly from 0 at the first.
        embed: patches (`PatchEmbed`, `NormPatchEmbed`) or convolutions (`ConvStem`).
        position: "learned", "rotary" (the published raster form), "rotary_axial" or "none".
        mixer: what mixes tokens: `SelfAttention`, `Fourier`, `TokenMlp`.
        qkv_bias, out_bias: biases of the attention's projections.

    Raises:
        ValueError: when constructed with fields that cannot work together, or called with an image
            of another shape.
    """

    image_size: int | tuple[int, int]
    patch_size: int | tuple[int, int]
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    pool: str = "cls"
    dim_head: int = 64
    dropout: float = 0.0
    emb_dropout: float = 0.0
    stochastic_depth: float = 0.0
    embed: ModuleDef = PatchEmbed
    position: str = "learned"
    mixer: ModuleDef = SelfAttention
    qkv_bias: bool = False
    out_bias: bool = True

    # What distinguishes whole families and is nobody's knob.
    block: ClassVar[ModuleDef] = Block
    pools: ClassVar[tuple[str, ...]] = ("cls", "mean")
    positions: ClassVar[tuple[str, ...]] = tuple(POSITIONS)
    class_token: ClassVar[bool] = True
    norm_before_pool: ClassVar[bool] = False
    attention_drops: ClassVar[str] = "nothing"  # or "output", "weights", "both": by `dropout`
    unused: ClassVar[tuple[str, ...]] = ()  # fields that a variant inherits and does not use
    unused_hint: ClassVar[str] = ""
    unused_positions: ClassVar[bool] = False  # the published model has positions it never reads

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        require_positive_ints(self, "dim", "depth", "heads", "dim_head", "mlp_dim")
        require_rates(self, "dropout", "emb_dropout", "stochastic_depth")
        for field in self.unused:
            if getattr(self, field) != type(self).__dataclass_fields__[field].default:
                raise ValueError(f"{field} has no effect here: leave it out" + self.unused_hint)
        if self.pool not in self.pools:
            raise ValueError(
                f"pool={self.pool!r} is unknown here; use {' or '.join(map(repr, self.pools))}"
            )
        if self.position not in self.positions:
            raise ValueError(
                f"position={self.position!r} is unknown here"
                + did_you_mean(str(self.position), self.positions)
            )
        self.grid  # noqa: B018  (raises if the embedding cannot cut this image)
        if self.rotary:
            if "rotary" not in field_names(self.mixer):
                raise ValueError(
                    f"position={self.position!r} needs attention; {self.mixer.__name__} has no "
                    "queries and keys to turn: use 'learned' or 'none'"
                )
            check_rotary_width(self.rotary, self.dim_head)

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return self.dim

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the map of tokens."""
        return self._embed().grid(pair("image_size", self.image_size))

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each map that parameters depend on the size of, in order."""
        return (self.grid,)

    @property
    def rotary(self) -> str | None:
        """The layout of rotary positions, if any."""
        return POSITIONS[self.position]

    @property
    def fixed_attention(self) -> str:
        """Why `attention` cannot be chosen; empty where it can."""
        if "core" in field_names(self.mixer):
            return ""
        return f"{self.mixer.__name__} does not attend; give mixer='self_attention', too"

    @property
    def out_dropout(self) -> float:
        """Dropout after the attention's output projection."""
        return self.dropout if self.attention_drops in ("output", "both") else 0.0

    @property
    def attention_dropout(self) -> float:
        """Dropout on the attention's weights."""
        return self.dropout if self.attention_drops in ("weights", "both") else 0.0

    @property
    def mlp_width(self) -> int:
        """Hidden units of the MLPs."""
        return self.mlp_dim

    def _embed(self):
        cuts_patches = "patch_size" in field_names(self.embed)
        given = {"patch_size": pair("patch_size", self.patch_size)} if cuts_patches else {}
        return build(self.embed, self, **given)

    def _mixer(self):
        given = {"core": self.core()} if "core" in field_names(self.mixer) else {}
        return build(self.mixer, self, **given)

    def setup(self):
        """Builds the parts: for the verb `tokens`, for `encode`, and the head."""
        self.setup_tokens()
        self.setup_encoder()
        if self.num_classes:
            self.head = Head(self.num_classes, not self.norm_before_pool, self.dtype)

    def setup_tokens(self) -> None:
        """Embedding, class token, positions."""
        rows, columns = self.grid
        unit_normal = nn.initializers.normal(1.0)
        self.embedding = self._embed()
        if self.class_token:
            self.cls_token = self.param("cls_token", unit_normal, (1, 1, self.dim))
        if self.position == "learned" or (self.reference and self.unused_positions):
            shape = (1, rows * columns + self.class_token, self.dim)
            self.pos_embedding = self.param("pos_embedding", unit_normal, shape)
        self.emb_drop = Dropout(self.emb_dropout)

    def setup_encoder(self) -> None:
        """Blocks, and the norm behind them."""
        block = self.rematted(self.block)
        self.blocks = [
            build(
                block,
                self,
                mixer=self._mixer(),
                mlp_dim=self.mlp_width,
                drop_path=self.stochastic_depth * i / max(self.depth - 1, 1),
            )
            for i in range(self.depth)
        ]
        if self.norm_before_pool:
            self.norm = LayerNorm(dtype=self.dtype)

    def tokens(self, img: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, H, W, C) -> (b, n, dim)`: embedded, class token in front, positions added."""
        check_image(img.shape, self.channels, pair("image_size", self.image_size))
        x = self.embedded(img, train)
        x = x.reshape(x.shape[0], -1, self.dim)
        if self.class_token:
            x = prepend_token(self.cls_token, x)
        if self.position == "learned":
            x = x + self.pos_embedding.astype(x.dtype)
        return self.emb_drop(x, train)

    def embedded(self, img: jax.Array, train: bool) -> jax.Array:
        """`(b, H, W, C) -> (b, h, w, dim)`; `train` is for embeddings that have dropout."""
        return self.embedding(img)

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, n, dim) -> (b, n, dim)`: through all blocks."""
        x = tokens
        for block in self.blocks:
            x = block(x, train)
        return self.norm(x) if self.norm_before_pool else x

    def pooled(self, tokens: jax.Array) -> jax.Array:
        """`(b, n, dim) -> (b, dim)`: the class token, or the mean of all tokens."""
        if self.pool == "cls":
            return tokens[:, 0]
        return tokens.mean(axis=1, dtype=jnp.float32).astype(tokens.dtype)
