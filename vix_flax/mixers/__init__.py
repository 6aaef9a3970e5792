"""Mixers let positions see each other: `(b, *space, c) -> (b, *space, c)`, tokens or maps."""

from vix_flax.mixers.fourier import Fourier
from vix_flax.mixers.self_attention import SelfAttention
from vix_flax.mixers.token_mlp import TokenMlp

MIXERS = {"self_attention": SelfAttention, "fourier": Fourier, "token_mlp": TokenMlp}

__all__ = ["MIXERS", "Fourier", "SelfAttention", "TokenMlp"]
