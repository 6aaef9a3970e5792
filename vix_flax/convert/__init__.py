"""Weights of published models, converted."""

from vix_flax.convert.torch import from_torch

__all__ = ["from_torch"]
