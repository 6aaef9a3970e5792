"""The feed-forward half of a block: two dense layers and an activation, for each token alone."""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.layers.activation import activate
from vix_flax.layers.dense import Dense


class Mlp(nn.Module):
    """`(..., c) -> (..., c)` through `mlp_dim` hidden units; dropout after each dense layer."""

    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: Any = None
    initializer: str = "fan_in"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        c = x.shape[-1]
        given = dict(dtype=self.dtype, initializer=self.initializer)
        x = activate(Dense(self.mlp_dim, **given, name="dense1")(x), self.activation)
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        x = Dense(c, **given, name="dense2")(x)
        return nn.Dropout(self.dropout)(x, deterministic=not train)
