"""Token mixing by a learned MLP along the tokens, the same for every feature.

Tolstikhin et al. 2021 (MLP-Mixer), arXiv:2105.01601. Cost O(n²·expansion·c); the token count is
fixed at `init`. (b, *space, c) -> (b, *space, c)
"""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.layers.mlp import Mlp


class TokenMlp(nn.Module):
    """n -> n · `expansion_factor` -> n with GELU between, biases per token, dropout after each."""

    expansion_factor: int = 4
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        b, *_, c = x.shape
        tokens = x.reshape(b, -1, c).swapaxes(1, 2)
        mlp_dim = tokens.shape[-1] * self.expansion_factor
        mlp = Mlp(mlp_dim, dropout=self.dropout, dtype=self.dtype, name="mlp")
        return mlp(tokens, train).swapaxes(1, 2).reshape(x.shape)
