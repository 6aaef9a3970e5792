"""The residual wiring of a mixer and an MLP."""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.layers.mlp import Mlp
from vix_flax.layers.norm import LayerNorm


class Block(nn.Module):
    """Pre-norm: x + mixer(norm(x)), then x + mlp(norm(x)). `(b, n, c) -> (b, n, c)`"""

    mixer: nn.Module
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = x + self.mixer(LayerNorm(dtype=self.dtype, name="norm1")(x), train=train)
        normed = LayerNorm(dtype=self.dtype, name="norm2")(x)
        mlp = Mlp(self.mlp_dim, self.activation, self.dropout, self.dtype, name="mlp")
        return self.second_residual(x, normed) + mlp(normed, train)

    def second_residual(self, x: jax.Array, normed: jax.Array) -> jax.Array:
        """What the MLP's output is added to."""
        return x


class RenormBlock(Block):
    """Block whose second residual is the *normed* stream: nanovit's and CCT's."""

    def second_residual(self, x: jax.Array, normed: jax.Array) -> jax.Array:
        """What the MLP's output is added to."""
        return normed
