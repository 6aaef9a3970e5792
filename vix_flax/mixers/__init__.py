"""Mixers let positions see each other: `(b, *space, c) -> (b, *space, c)`, tokens or maps."""

from vix_flax.mixers.class_attention import ClassAttention
from vix_flax.mixers.conv_attention import ConvAttention
from vix_flax.mixers.fourier import Fourier
from vix_flax.mixers.levit_attention import LeViTAttention
from vix_flax.mixers.self_attention import SelfAttention, needs_projection
from vix_flax.mixers.token_mlp import TokenMlp
from vix_flax.mixers.window_attention import WindowAttention

# Those that a model takes as its `mixer`.
MIXERS = {"self_attention": SelfAttention, "fourier": Fourier, "token_mlp": TokenMlp}

__all__ = [
    "MIXERS",
    "ClassAttention",
    "ConvAttention",
    "Fourier",
    "LeViTAttention",
    "SelfAttention",
    "TokenMlp",
    "WindowAttention",
    "needs_projection",
]
