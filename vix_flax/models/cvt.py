"""CvT: three stages of a strided convolution and blocks whose projections are convolutions, too.

Wu et al. 2021, arXiv:2103.15808, with the attention as a field. No positions, no class token, any
image size. (b, H, W, C) -> (b, num_classes)
"""

import jax
from flax import linen as nn

from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers import Conv, Dense, LayerNorm, ModuleDef, build
from vix_flax.mixers import ConvAttention
from vix_flax.models.backbone import AttentionBackbone, MapBackbone
from vix_flax.models.block import Block
from vix_flax.models.image import check_image

STAGES = ("s1", "s2", "s3")
STAGE_FIELDS = (
    "emb_dim", "emb_kernel", "emb_stride", "proj_kernel", "kv_proj_stride", "heads", "depth",
    "mlp_mult",
)  # fmt: skip


class CvT(MapBackbone, AttentionBackbone, kw_only=True):
    """CvT (arXiv:2103.15808): three stages of a convolution and blocks behind convolutions.

    Keys and values are fewer than queries. Training needs `mutable=["batch_stats"]`. Fields beyond
    these are those of `AttentionBackbone`.

    Attributes:
        s1_emb_dim, s1_emb_kernel, s1_emb_stride: of the stage's convolution; s2, s3 alike.
        s1_proj_kernel, s1_kv_proj_stride: of the depth-wise convolutions before the attention.
        s1_heads, s1_depth, s1_mlp_mult: of the stage's blocks.
        dropout: on the attention's weights and output, and in the MLPs.
        dim_head: features of a head.
    """

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
    dim_head: int = 64

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        fields = (f"{stage}_{name}" for stage in STAGES for name in STAGE_FIELDS)
        require_positive_ints(self, *fields, "dim_head")
        require_rates(self, "dropout")
        for stage in STAGES:
            (kernel,) = self.of_stage(stage, "proj_kernel")
            if kernel % 2 == 0:
                raise ValueError(f"{stage}_proj_kernel={kernel} must be odd, to keep the map")

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return self.s3_emb_dim

    @property
    def norm(self) -> ModuleDef:
        """The class of every norm."""
        return LayerNorm

    def of_stage(self, stage: str, *names: str) -> list[int]:
        """The stage's values of fields named without `s1_`."""
        return [getattr(self, f"{stage}_{name}") for name in names]

    def mixer(self, stage: str) -> nn.Module:
        """The attention of a stage's blocks."""
        heads, kernel, stride = self.of_stage(stage, "heads", "proj_kernel", "kv_proj_stride")
        return build(
            ConvAttention,
            self,
            core=self.core(attention_dropout=self.dropout),
            heads=heads,
            proj_kernel=kernel,
            kv_proj_stride=stride,
            out_dropout=self.dropout,
        )

    def setup(self):
        """Builds the parts."""
        block = self.rematted(Block)
        convs, norms, blocks = [], [], []
        for stage in STAGES:
            dim, kernel, stride = self.of_stage(stage, "emb_dim", "emb_kernel", "emb_stride")
            depth, mult = self.of_stage(stage, "depth", "mlp_mult")
            convs.append(Conv(dim, kernel, stride, kernel // 2, dtype=self.dtype))
            norms.append(self.norm(dtype=self.dtype))
            blocks.append(
                [build(block, self, mixer=self.mixer(stage), mlp_dim=dim * mult)
                 for _ in range(depth)]
            )  # fmt: skip
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
