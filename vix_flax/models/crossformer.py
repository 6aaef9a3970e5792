"""CrossFormer: tokens of several scales at once, attending to neighbours and far away in turn.

Wang et al. 2021, arXiv:2108.00154, with the attention as a field. (b, H, W, C) -> (b, num_classes)
"""

import math
from typing import Any

import jax

from vix_flax.checks import per_stage, require_positive_ints, require_rates
from vix_flax.layers import CrossScaleEmbed, Dense, build
from vix_flax.mixers import SelfAttention, WindowAttention
from vix_flax.models.backbone import AttentionBackbone, MapBackbone
from vix_flax.models.block import Block
from vix_flax.models.image import check_image

STAGES = 4


class CrossFormer(MapBackbone, AttentionBackbone, kw_only=True):
    """CrossFormer (arXiv:2108.00154): four stages of a cross-scale embedding and pairs of blocks.

    The first block of a pair attends within windows of neighbours, the second within windows of
    far-apart positions. A window's scores get a bias computed from the offset; attention cores
    that form no scores go without. Fields beyond these are those of `AttentionBackbone`.

    Attributes:
        dim, depth: of each stage; heads are 32 wide and there are `dim // 32`. A `depth` of 1 is
            one pair of blocks.
        global_window_size, local_window_size: sides of the windows, an int or one for each stage;
            they must divide the sides of the stage's map.
        cross_embed_kernel_sizes, cross_embed_strides: of each stage's embedding.
        attn_dropout: on the attention's weights.
        ff_dropout: in the MLPs.
    """

    num_classes: int = 1000
    dim: int | tuple[int, ...] = (64, 128, 256, 512)
    depth: int | tuple[int, ...] = (2, 2, 8, 2)
    global_window_size: int | tuple[int, ...] = (8, 4, 2, 1)
    local_window_size: int | tuple[int, ...] = 7
    cross_embed_kernel_sizes: tuple[tuple[int, ...], ...] = ((4, 8, 16, 32), (2, 4), (2, 4), (2, 4))
    cross_embed_strides: tuple[int, ...] = (4, 2, 2, 2)
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0
    dim_head: int = 32

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        windows = ("global_window_size", "local_window_size")
        require_positive_ints(self, "dim", "depth", *windows, "cross_embed_strides", "dim_head")
        require_rates(self, "attn_dropout", "ff_dropout")
        for field in ("dim", "depth", *windows):
            per_stage(self, field, STAGES)
        for field in ("cross_embed_kernel_sizes", "cross_embed_strides"):
            value = getattr(self, field)
            if not isinstance(value, tuple) or len(value) != STAGES:
                raise ValueError(f"{field}={value!r} must have {STAGES} entries")
        for kernels in self.cross_embed_kernel_sizes:
            whole = isinstance(kernels, tuple) and all(type(k) is int and k > 0 for k in kernels)
            if not whole:
                raise ValueError(
                    f"cross_embed_kernel_sizes={self.cross_embed_kernel_sizes!r} must be the "
                    f"kernels of each stage, e.g. ((4, 8), (2, 4), (2, 4), (2, 4))"
                )
        if min(per_stage(self, "dim", STAGES)) < 4:
            raise ValueError(f"dim={self.dim} must be at least 4: the position bias has a quarter")
        if min(per_stage(self, "dim", STAGES)) < self.dim_head:
            raise ValueError(f"dim={self.dim} must be at least dim_head={self.dim_head}, a head's")
        for stage in range(STAGES):
            self._embed(stage).check()

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return per_stage(self, "dim", STAGES)[-1]

    @property
    def smallest_image(self) -> int:
        """The shortest side whose maps all windows divide; every multiple of it works, too."""
        shrunk, sides = 1, []
        for stage, stride in enumerate(self.cross_embed_strides):
            shrunk *= stride
            near = per_stage(self, "local_window_size", STAGES)[stage]
            far = per_stage(self, "global_window_size", STAGES)[stage]
            sides.append(shrunk * math.lcm(near, far))
        return math.lcm(*sides)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of this combination of fields."""
        return self.without_bias("CrossFormer's dynamic position bias")

    def _embed(self, stage: int) -> CrossScaleEmbed:
        return CrossScaleEmbed(
            per_stage(self, "dim", STAGES)[stage],
            self.cross_embed_kernel_sizes[stage],
            self.cross_embed_strides[stage],
            self.dtype,
            parent=None,
        )

    def _block(self, stage: int, long: bool) -> dict[str, Any]:
        dim = per_stage(self, "dim", STAGES)[stage]
        core = self.core(attention_dropout=self.attn_dropout)
        attention = build(SelfAttention, self, core=core, heads=dim // self.dim_head)
        window = "global_window_size" if long else "local_window_size"
        side = per_stage(self, window, STAGES)[stage]
        return dict(
            mixer=WindowAttention(attention, side, dim // 4, long, self.dtype, parent=None),
            mlp_dim=4 * dim,
            dropout=self.ff_dropout,
            drops_output=False,
        )

    def setup(self):
        """Builds the parts."""
        block = self.rematted(Block)
        self.embeddings = [self._embed(stage) for stage in range(STAGES)]
        self.blocks = [
            [
                build(block, self, **self._block(stage, long))
                for _ in range(depth)
                for long in (False, True)
            ]
            for stage, depth in enumerate(per_stage(self, "depth", STAGES))
        ]
        if self.num_classes:
            self.classifier = Dense(self.num_classes, dtype=self.dtype)

    def tokens(self, img: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, H, W, C) -> (b, h, w, dim)`: the first stage's embedding."""
        check_image(img.shape, self.channels)
        return self.embeddings[0](img)

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, h, w, dim) -> (b, h', w', num_features)`: through all stages."""
        x = tokens
        for stage, blocks in enumerate(self.blocks):
            if stage:
                x = self.embeddings[stage](x)
            for block in blocks:
                x = block(x, train)
        return x
