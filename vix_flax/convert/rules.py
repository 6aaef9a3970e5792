"""Which rename table a model's published state dict needs, and what in it goes unread."""

from flax import linen as nn

from vix_flax.convert import package_rules as package
from vix_flax.convert import vix_rules as vix
from vix_flax.convert.table import Table
from vix_flax.models import (
    CCX,
    CaiT,
    CrossFormer,
    CrossViT,
    CvT,
    EfficientViT,
    FNet2D,
    LeViT,
    PiT,
    T2TViT,
)
from vix_flax.zoo import DeepViT, DualNormViT, FNet, ImageNetHybridViN, MLPMixer, NanoViT

FAMILIES = (
    (MLPMixer, vix.mlp_mixer),
    (LeViT, package.levit),
    (CvT, package.cvt),
    (CaiT, package.cait),
    (T2TViT, package.t2t),
    (PiT, package.pit),
    (CrossViT, package.cross_vit),
    (CrossFormer, package.crossformer),
    (EfficientViT, package.efficient),
    (DualNormViT | DeepViT, package.vit),
    (CCX, vix.ccx),
    (FNet2D, lambda _: vix.FNET2D),
    (NanoViT, lambda _: vix.NANO),
    (FNet, lambda _: vix.FNET),
    (ImageNetHybridViN, lambda _: vix.IMAGENET),
)


def table_for(model: nn.Module) -> Table:
    """The rename table of the model's family."""
    for family, table in FAMILIES:
        if isinstance(model, family):
            return table(model)
    return vix.VIX


def not_read(model: nn.Module) -> set[str]:
    """Names that a published state dict has and this model does without."""
    if isinstance(model, CCX) and model.positional_embedding != "learnable":
        return {"classifier.positional_emb"}  # the sine table
    if getattr(model, "unused_positions", False) and not model.reference:
        return {"pos_embedding"}
    return set()
