"""The residual wiring of a mixer and an MLP."""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.layers.build import ModuleDef
from vix_flax.layers.drop_path import DropPath
from vix_flax.layers.mlp import Mlp
from vix_flax.layers.norm import LayerNorm


class Block(nn.Module):
    """Pre-norm: x + mixer(norm(x)), then x + mlp(norm(x)). `(b, *space, c) -> (b, *space, c)`"""

    mixer: nn.Module
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    drop_path: float = 0.0  # stochastic depth of both branches
    initializer: str = "fan_in"
    norm: ModuleDef = LayerNorm
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        mixed = self.mixer(self.norm(dtype=self.dtype, name="norm1")(x), train=train)
        x = x + DropPath(self.drop_path)(mixed, train)
        normed = self.norm(dtype=self.dtype, name="norm2")(x)
        mlp = Mlp(
            self.mlp_dim, self.activation, self.dropout, self.dtype, self.initializer, name="mlp"
        )
        branch = DropPath(self.drop_path)(mlp(normed, train), train)
        return self.second_residual(x, normed) + branch

    def second_residual(self, x: jax.Array, normed: jax.Array) -> jax.Array:
        """What the MLP's output is added to."""
        return x


class RenormBlock(Block):
    """Block whose second residual is the *normed* stream: nanovit's and CCT's."""

    def second_residual(self, x: jax.Array, normed: jax.Array) -> jax.Array:
        """What the MLP's output is added to."""
        return normed
