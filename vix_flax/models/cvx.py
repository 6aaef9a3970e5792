"""CvX: three stages of a strided convolution and a few blocks, in the outline of CvT.

Wu et al. 2021 (CvT), arXiv:2103.15808; this form, with linear attention and dense projections in
place of depth-wise convolutions: Jeevan & Sethi 2021, arXiv:2107.02239. No positions,
no class token, any image size. (b, H, W, C) -> (b, num_classes)
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from flax.core import FrozenDict

from vix_flax.attention import Softmax
from vix_flax.checks import require_num_classes, require_positive_ints, require_rates
from vix_flax.layers import Conv, Dense, LayerNorm, ModuleDef, build
from vix_flax.layers.norm import SigmaNorm
from vix_flax.mixers import SelfAttention
from vix_flax.models.backbone import MapBackbone
from vix_flax.models.block import Block
from vix_flax.models.image import check_dtype, check_image

STAGES = ("s1", "s2", "s3")


class CvX(MapBackbone, kw_only=True):
    """Stage by stage a convolution, a norm and pre-norm blocks on the map; global mean; head.

    Attributes:
        num_classes: 0 gives the pooled features `(b, s3_emb_dim)`.
        s1_emb_dim, s1_emb_kernel, s1_emb_stride: of the stage's convolution; s2, s3 alike.
        s1_heads, s1_depth, s1_mlp_mult: of the stage's blocks.
        s1_proj_kernel, s1_kv_proj_stride: accepted as published, where they have no effect either.
        dropout: in the MLPs.
        channels: of the image.
        dim_head: features of a head.
        attention, attention_options, qkv_bias, reference, dtype, remat: as in `ViX`; with
            `reference` the norms add ε to σ instead of to the variance.
    """

    num_classes: int
    s1_emb_dim: int = 64
    s1_emb_kernel: int = 7
    s1_emb_stride: int = 4
    s1_proj_kernel: int = 3
    s1_kv_proj_stride: int = 2
    s1_heads: int = 1
    s1_depth: int = 1
    s1_mlp_mult: int = 4
    s2_emb_dim: int = 192
    s2_emb_kernel: int = 3
    s2_emb_stride: int = 2
    s2_proj_kernel: int = 3
    s2_kv_proj_stride: int = 2
    s2_heads: int = 3
    s2_depth: int = 2
    s2_mlp_mult: int = 4
    s3_emb_dim: int = 384
    s3_emb_kernel: int = 3
    s3_emb_stride: int = 2
    s3_proj_kernel: int = 3
    s3_kv_proj_stride: int = 2
    s3_heads: int = 6
    s3_depth: int = 10
    s3_mlp_mult: int = 4
    dropout: float = 0.0
    channels: int = 3
    dim_head: int = 32
    attention: ModuleDef = Softmax
    attention_options: Mapping[str, Any] = FrozenDict()
    qkv_bias: bool = False
    reference: bool = False
    dtype: Any = None
    remat: bool = False

    def __post_init__(self):
        self.attention_options = FrozenDict(self.attention_options)
        names = ("emb_dim", "emb_kernel", "emb_stride", "heads", "depth", "mlp_mult")
        fields = (f"{stage}_{name}" for stage in STAGES for name in names)
        require_positive_ints(self, *fields, "channels", "dim_head")
        require_num_classes(self)
        require_rates(self, "dropout")
        check_dtype(self.dtype)
        self._mixer("s1")
        super().__post_init__()

    @property
    def dim(self) -> int:
        """Width of the last stage."""
        return self.s3_emb_dim

    def _mixer(self, stage: str):
        core = build(self.attention, self, **self.attention_options)
        return build(SelfAttention, self, core=core, heads=getattr(self, f"{stage}_heads"))

    def setup(self):
        """Builds the parts."""
        norm = SigmaNorm if self.reference else LayerNorm
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        convs, norms, blocks = [], [], []
        for stage in STAGES:
            dim, kernel, stride, depth, mult = (
                getattr(self, f"{stage}_{name}")
                for name in ("emb_dim", "emb_kernel", "emb_stride", "depth", "mlp_mult")
            )
            convs.append(Conv(dim, kernel, stride, kernel // 2, dtype=self.dtype))
            norms.append(norm(dtype=self.dtype))
            blocks.append(
                [
                    build(block, self, mixer=self._mixer(stage), mlp_dim=dim * mult, norm=norm)
                    for _ in range(depth)
                ]
            )
        self.convs, self.norms, self.blocks = convs, norms, blocks
        if self.num_classes:
            self.classifier = Dense(self.num_classes, dtype=self.dtype)

    def tokens(self, img: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, H, W, C) -> (b, h, w, s1_emb_dim)`: the first stage's convolution, normed."""
        check_image(img.shape, self.channels)
        return self.norms[0](self.convs[0](img))

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, h, w, s1_emb_dim) -> (b, h', w', s3_emb_dim)`: through all stages."""
        x = tokens
        for stage, blocks in enumerate(self.blocks):
            if stage:
                x = self.norms[stage](self.convs[stage](x))
            for block in blocks:
                x = block(x, train)
        return x
