"""Mixers let positions see each other: `(b, *space, c) -> (b, *space, c)`, tokens or maps."""

from vix_flax.mixers.fourier import Fourier
from vix_flax.mixers.self_attention import SelfAttention
from vix_flax.mixers.token_mlp import TokenMlp

__all__ = ["Fourier", "SelfAttention", "TokenMlp"]
