"""Backbones: four verbs each (`tokens`, `encode`, `pooled`, `head`), chained by `__call__`."""

from vix_flax.models.backbone import AttentionBackbone, Backbone, MapBackbone
from vix_flax.models.block import Block, NormlessBlock, RenormBlock
from vix_flax.models.cait import CaiT
from vix_flax.models.ccx import CCX
from vix_flax.models.cross_vit import CrossViT
from vix_flax.models.crossformer import CrossFormer
from vix_flax.models.cvt import CvT
from vix_flax.models.cvx import CvX
from vix_flax.models.efficient import EfficientViT
from vix_flax.models.fnet2d import FNet2D
from vix_flax.models.levit import LeViT
from vix_flax.models.levix import LeViX
from vix_flax.models.pit import PiT
from vix_flax.models.t2t import T2TViT, TokensToToken
from vix_flax.models.transformer import Nystromformer, Transformer
from vix_flax.models.vix import ViX
from vix_flax.models.x_encoder import Encoder

__all__ = [
    "AttentionBackbone",
    "Backbone",
    "Block",
    "CCX",
    "CaiT",
    "CrossFormer",
    "CrossViT",
    "CvT",
    "CvX",
    "EfficientViT",
    "Encoder",
    "FNet2D",
    "LeViT",
    "LeViX",
    "MapBackbone",
    "NormlessBlock",
    "Nystromformer",
    "PiT",
    "RenormBlock",
    "T2TViT",
    "TokensToToken",
    "Transformer",
    "ViX",
]
