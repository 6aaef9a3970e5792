"""LeViT: stages of attention on shrinking maps, without a norm between a block's halves.

Graham et al. 2021, arXiv:2104.01136, with the attention as a field.
(b, H, W, C) -> (b, num_classes)
"""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.checks import per_stage, require_positive_ints, require_rates
from vix_flax.layers import Dense, LeViTStem, ModuleDef, build
from vix_flax.mixers import LeViTAttention
from vix_flax.models.backbone import AttentionBackbone, MapBackbone
from vix_flax.models.block import NormlessBlock
from vix_flax.models.image import check_image, pair


class LeViT(MapBackbone, AttentionBackbone, kw_only=True):
    """LeViT (arXiv:2104.01136): convolutional stem, stages of attention on shrinking maps.

    The block between two `stages` has twice the heads, queries on every second row and column, and
    no residual around its attention; as published its MLP is always twice as wide as the map and
    has no dropout. Training needs `mutable=["batch_stats"]`. Attention cores that form no scores go
    without the bias for offsets. Fields beyond these are those of `AttentionBackbone`.

    Attributes:
        image_size: an int or (height, width); the stem takes a sixteenth of each side.
        dim, depth, heads: an int, or one for each stage (the last is repeated).
        mlp_mult: hidden units of the MLPs over their width.
        stages: how many.
        dim_key, dim_value: features of a head's queries and keys, and of its values.
        dropout: on the attention's weights and output, and in the MLPs.
        num_distill_classes: a second head for distillation; the result is then (logits, distilled).
    """

    image_size: int | tuple[int, int]
    dim: int | tuple[int, ...]
    depth: int | tuple[int, ...]
    heads: int | tuple[int, ...]
    mlp_mult: int
    stages: int = 3
    dim_key: int = 32
    dim_value: int = 64
    dropout: float = 0.0
    num_distill_classes: int | None = None

    embed: ClassVar[ModuleDef] = LeViTStem
    mlp_activation: ClassVar[str] = "hardswish"
    shrink: ClassVar[int] = 2  # stride of the queries between stages

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        widths = ("stages", "dim", "depth", "heads", "mlp_mult", "dim_key", "dim_value")
        require_positive_ints(self, *widths, "num_distill_classes")
        require_rates(self, "dropout")
        for field in ("dim", "depth", "heads"):
            per_stage(self, field, self.stages)
        pair("image_size", self.image_size)

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return per_stage(self, "dim", self.stages)[-1]

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of the map in each stage."""
        grids = [self._stem().grid(pair("image_size", self.image_size))]
        for _ in range(self.stages - 1):
            rows, columns = grids[-1]
            grids.append((-(-rows // self.shrink), -(-columns // self.shrink)))
        return tuple(grids)

    def map_of(self, path: tuple[str, ...]) -> int | None:
        """Which of `grids` the parameter at `path` belongs to, if it has an entry a position."""
        block = int(path[1].removeprefix("blocks_"))
        ends = [depth + 1 for depth in per_stage(self, "depth", self.stages)]
        return next(s for s in range(self.stages) if block < sum(ends[: s + 1]))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of this combination of fields."""
        return self.without_bias("LeViT's bias for offsets")

    def _stem(self):
        return build(self.embed, self, dim=per_stage(self, "dim", self.stages)[0])

    def mixer(self, stage: int, between: bool) -> nn.Module:
        """The attention of a stage's blocks, or of the block between it and the next."""
        rate = 0.0 if between else self.dropout
        return build(
            LeViTAttention,
            self,
            core=self.core(attention_dropout=rate),
            heads=per_stage(self, "heads", self.stages)[stage] * (2 if between else 1),
            dim_out=per_stage(self, "dim", self.stages)[stage + between],
            stride=self.shrink if between else 1,
            out_dropout=rate,
        )

    def setup(self):
        """Builds the parts."""
        self.stem = self._stem()
        block = functools.partial(self.rematted(NormlessBlock), activation=self.mlp_activation)
        dims = per_stage(self, "dim", self.stages)
        blocks = []
        for stage, depth in enumerate(per_stage(self, "depth", self.stages)):
            width = dims[stage] * self.mlp_mult
            blocks += [
                build(block, self, mixer=self.mixer(stage, False), mlp_dim=width)
                for _ in range(depth)
            ]
            if stage < self.stages - 1:
                between = dict(mlp_dim=2 * dims[stage + 1], residual=False, dropout=0.0)
                blocks.append(build(block, self, mixer=self.mixer(stage, True), **between))
        self.blocks = blocks
        if self.num_classes:
            self.classifier = Dense(self.num_classes, dtype=self.dtype)
        if self.num_distill_classes:
            self.distill_head = Dense(self.num_distill_classes, dtype=self.dtype)

    def tokens(self, img: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, H, W, C) -> (b, h, w, dim)` of the first stage."""
        check_image(img.shape, self.channels, pair("image_size", self.image_size))
        return self.stem(img)

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, h, w, dim) -> (b, h', w', dim')`: through all stages."""
        for block in self.blocks:
            tokens = block(tokens, train)
        return tokens

    def __call__(self, img: jax.Array, *, train: bool = False) -> Any:
        """Logits `(b, num_classes)`, float32; with a distillation head, a pair of logits."""
        if not self.num_distill_classes:
            return super().__call__(img, train=train)
        features = self.pooled(self.encode(self.tokens(img, train=train), train=train))
        distilled = self.distill_head(features).astype(jnp.float32)
        return (self.head(features) if self.num_classes else features), distilled
