"""LeViX: stages of blocks without norms on one feature map, in the outline of LeViT.

Graham et al. 2021 (LeViT), arXiv:2104.01136; this linear-attention form: Jeevan & Sethi 2021,
arXiv:2107.02239. As published it keeps little of LeViT: the map does not shrink between stages, and
there are no norms, no positions and no class token. (b, H, W, C) -> (b, num_classes)
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from vix_flax.attention import Softmax
from vix_flax.checks import require_num_classes, require_positive_ints, require_rates
from vix_flax.layers import Dense, Mlp, ModuleDef, StridedConvStem, build
from vix_flax.mixers import SelfAttention
from vix_flax.models.backbone import MapBackbone
from vix_flax.models.image import check_dtype, check_image, pair


class NormlessBlock(nn.Module):
    """mixer(x), plus x if `residual`; then x + mlp(x). `(b, h, w, c) -> (b, h, w, c)`"""

    mixer: nn.Module
    mlp_dim: int
    residual: bool = True
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        mixed = self.mixer(x, train=train)
        x = x + mixed if self.residual else mixed
        return x + Mlp(self.mlp_dim, "gelu", self.dropout, self.dtype, name="mlp")(x, train)


class LeViX(MapBackbone, kw_only=True):
    """Convolutional stem, `stages` stages with one wide block between two, global mean, head.

    Attributes:
        image_size: an int or (height, width).
        num_classes: 0 gives the pooled features `(b, dim)`.
        dim, depth, heads: an int, or one for each stage (the last is repeated); all widths equal.
        mlp_mult: hidden units of the MLPs over `dim`; 2 in the blocks between stages.
        stages: how many.
        dropout: in the MLPs of the stages.
        num_distill_classes: a second head for distillation; the result is then (logits, distilled).
        channels: of the image.
        dim_head: features of a head.
        attention, attention_options, qkv_bias, reference, dtype, remat: as in `ViX`.
    """

    image_size: int | tuple[int, int]
    num_classes: int
    dim: int | tuple[int, ...]
    depth: int | tuple[int, ...]
    heads: int | tuple[int, ...]
    mlp_mult: int
    stages: int = 3
    dropout: float = 0.0
    num_distill_classes: int | None = None
    channels: int = 3
    dim_head: int = 32
    attention: ModuleDef = Softmax
    attention_options: Mapping[str, Any] = FrozenDict()
    qkv_bias: bool = False
    reference: bool = False
    dtype: Any = None
    remat: bool = False

    doubles_heads: ClassVar[bool] = True  # in the blocks between stages

    def __post_init__(self):
        self.attention_options = FrozenDict(self.attention_options)
        for field in ("image_size", "dim", "depth", "heads"):
            if isinstance(getattr(self, field), list):
                setattr(self, field, tuple(getattr(self, field)))
        require_positive_ints(
            self, "mlp_mult", "stages", "channels", "dim_head", "num_distill_classes"
        )
        require_num_classes(self)
        require_rates(self, "dropout")
        for field in ("dim", "depth", "heads"):
            if any(type(value) is not int or value < 1 for value in self._each(field)):
                raise ValueError(
                    f"{field}={getattr(self, field)!r} must be a positive int, or several"
                )
        if len(set(self._each("dim"))) > 1:
            raise ValueError(f"dim={self.dim}: the stages share one width; give equal dims")
        check_dtype(self.dtype)
        pair("image_size", self.image_size)
        self._block(0, 1)
        super().__post_init__()

    def _each(self, field: str) -> tuple[int, ...]:
        """A field as one value for each stage."""
        value = getattr(self, field)
        values = (value,) if isinstance(value, int) else value
        return (*values, *values[-1:] * self.stages)[: self.stages]

    @property
    def width(self) -> int:
        """Channels of the map."""
        return self._each("dim")[0]

    def _block(self, stage: int, heads_factor: int):
        """One block of a stage, or with `heads_factor=2` the one that follows it."""
        between = heads_factor > 1
        heads = self._each("heads")[stage] * (heads_factor if self.doubles_heads else 1)
        core = build(self.attention, self, **self.attention_options)
        return dict(
            mixer=build(SelfAttention, self, core=core, heads=heads),
            mlp_dim=self.width * (2 if between else self.mlp_mult),
            residual=not between,
            dropout=0.0 if between else self.dropout,
        )

    def setup(self):
        """Builds the parts."""
        self.stem = StridedConvStem(self.width, dtype=self.dtype)
        block = nn.remat(NormlessBlock, static_argnums=(2,)) if self.remat else NormlessBlock
        blocks = []
        for stage, depth in enumerate(self._each("depth")):
            blocks += [self._block(stage, 1) for _ in range(depth)]
            if stage < self.stages - 1:
                blocks.append(self._block(stage, 2))
        self.blocks = [block(**fields, dtype=self.dtype) for fields in blocks]
        if self.num_classes:
            self.classifier = Dense(self.num_classes, dtype=self.dtype)
        if self.num_distill_classes:
            self.distill_head = Dense(self.num_distill_classes, dtype=self.dtype)

    def tokens(self, img: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, H, W, C) -> (b, ⌈H/2⌉, ⌈W/2⌉, dim)`."""
        check_image(img.shape, self.channels, pair("image_size", self.image_size))
        return self.stem(img)

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, h, w, dim) -> (b, h, w, dim)`: through all stages."""
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
