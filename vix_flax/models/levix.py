"""LeViX: LeViT's outline with linear attention, as published for LeViN and LeViP.

Jeevan & Sethi 2021, arXiv:2107.02239. It keeps little of LeViT: the map does not shrink between
stages, and there are no norms and no positions. (b, H, W, C) -> (b, num_classes)
"""

from typing import ClassVar

from flax import linen as nn

from vix_flax.checks import per_stage, require_positive_ints
from vix_flax.layers import ModuleDef, StridedConvStem, build
from vix_flax.mixers import SelfAttention
from vix_flax.models.levit import LeViT


class LeViX(LeViT, kw_only=True):
    """Three convolutions, then stages of one width on one map; the MLPs alone have dropout.

    `dim_key` and `dim_value` are accepted as published, where they have no effect either.

    Attributes:
        dim_head: features of a head.
        qkv_bias: biases of the attention's projections.
    """

    dim_head: int = 32
    qkv_bias: bool = False

    embed: ClassVar[ModuleDef] = StridedConvStem
    mlp_activation: ClassVar[str] = "gelu"
    shrink: ClassVar[int] = 1
    doubles_heads: ClassVar[bool] = True  # in the blocks between stages

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        require_positive_ints(self, "dim_head")
        if len(set(per_stage(self, "dim", self.stages))) > 1:
            raise ValueError(f"dim={self.dim}: the stages share one width; give equal dims")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of this combination of fields."""
        return ()

    def mixer(self, stage: int, between: bool) -> nn.Module:
        """The attention of a stage's blocks, or of the block between it and the next."""
        heads = per_stage(self, "heads", self.stages)[stage]
        heads *= 2 if between and self.doubles_heads else 1
        return build(SelfAttention, self, core=self.core(), heads=heads)
