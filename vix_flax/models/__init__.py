"""Backbones: four verbs each (`tokens`, `encode`, `pooled`, `head`), chained by `__call__`."""

from vix_flax.models.block import Block, RenormBlock
from vix_flax.models.ccx import CCX
from vix_flax.models.fnet2d import FNet2D
from vix_flax.models.vix import ViX

__all__ = ["CCX", "Block", "FNet2D", "RenormBlock", "ViX"]
