"""CvX: CvT's outline with linear attention and dense projections, as published for CvN and CvP.

Jeevan & Sethi 2021, arXiv:2107.02239. No positions, no class token, any image size.
(b, H, W, C) -> (b, num_classes)
"""

from flax import linen as nn

from vix_flax.layers import LayerNorm, ModuleDef, SigmaNorm, build
from vix_flax.mixers import SelfAttention
from vix_flax.models.cvt import CvT


class CvX(CvT, kw_only=True):
    """CvT with `SelfAttention`; the MLPs alone have dropout.

    `s1_proj_kernel` and `s1_kv_proj_stride` are accepted as published, where they have no effect
    either. With `reference` the norms add ε to σ instead of to the variance.

    Attributes:
        qkv_bias: biases of the attention's projections.
    """

    dim_head: int = 32
    qkv_bias: bool = False

    @property
    def norm(self) -> ModuleDef:
        """The class of every norm."""
        return SigmaNorm if self.reference else LayerNorm

    def mixer(self, stage: str) -> nn.Module:
        """The attention of a stage's blocks."""
        (heads,) = self.of_stage(stage, "heads")
        return build(SelfAttention, self, core=self.core(), heads=heads)
