"""The residual wiring of a mixer and an MLP."""

from typing import Any, ClassVar

import jax
from flax import linen as nn

from vix_flax.layers import DropPath, LayerNorm, LayerScale, Mlp, ModuleDef


class Block(nn.Module):
    """Pre-norm: x + mixer(norm(x)), then x + mlp(norm(x)). `(b, *space, c) -> (b, *space, c)`

    Attributes:
        mixer: given x, and the `context` where the block is called with one.
        mlp_dim, activation, dropout, mlp: of the MLP, and its class.
        drop_path: stochastic depth of both branches.
        layer_scale: where both branches' learned factors start; None: there are none.
        initializer: of the MLP, see `Dense`.
        norm: class of both norms.
    """

    mixer: nn.Module
    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    drops_output: bool = True
    drop_path: float = 0.0
    layer_scale: float | None = None
    initializer: str = "fan_in"
    norm: ModuleDef = LayerNorm
    mlp: ModuleDef = Mlp
    dtype: Any = None

    stands_alone: ClassVar[bool] = True  # its parts are its own: see `training/blocks_once.py`

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool = False, context: jax.Array | None = None
    ) -> jax.Array:
        asked = () if context is None else (context,)
        normed = self.norm(dtype=self.dtype, name="norm1")(x)
        x = x + self.branch(self.mixer(normed, *asked, train=train), "scale1", train)
        normed = self.norm(dtype=self.dtype, name="norm2")(x)
        mlp = self.mlp(
            self.mlp_dim,
            self.activation,
            self.dropout,
            self.dtype,
            self.initializer,
            self.drops_output,
            name="mlp",
        )
        branch = self.branch(mlp(normed, train), "scale2", train)
        return self.second_residual(x, normed) + branch

    def branch(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """What is done to a branch's output before it is added."""
        if self.layer_scale is not None:
            x = LayerScale(self.layer_scale, name=name)(x)
        return DropPath(self.drop_path)(x, train)

    def second_residual(self, x: jax.Array, normed: jax.Array) -> jax.Array:
        """What the MLP's output is added to."""
        return x


class RenormBlock(Block):
    """Block whose second residual is the *normed* stream: nanovit's and CCT's."""

    def second_residual(self, x: jax.Array, normed: jax.Array) -> jax.Array:
        """What the MLP's output is added to."""
        return normed


class NormlessBlock(nn.Module):
    """mixer(x), plus x if `residual`; then x + mlp(x): LeViT's. `(b, h, w, c) -> (b, h', w', c')`

    The mixer may change the map's size and width where there is no residual.
    """

    mixer: nn.Module
    mlp_dim: int
    activation: str = "gelu"
    residual: bool = True
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        mixed = self.mixer(x, train=train)
        x = x + mixed if self.residual else mixed
        mlp = Mlp(self.mlp_dim, self.activation, self.dropout, self.dtype, name="mlp")
        return x + mlp(x, train)
