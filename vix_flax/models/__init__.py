"""Backbones: four verbs each (`tokens`, `encode`, `pooled`, `head`), chained by `__call__`."""

from vix_flax.models.block import Block, RenormBlock
from vix_flax.models.ccx import CCX
from vix_flax.models.cvx import CvX
from vix_flax.models.fnet2d import FNet2D
from vix_flax.models.levix import LeViX
from vix_flax.models.vix import ViX

__all__ = ["CCX", "Block", "CvX", "FNet2D", "LeViX", "RenormBlock", "ViX"]
