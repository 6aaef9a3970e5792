"""The feed-forward half of a block: two dense layers and an activation, for each token alone."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.layers.activation import activate
from vix_flax.layers.dense import Dense
from vix_flax.layers.dropout import Dropout


class Mlp(nn.Module):
    """`(..., c) -> (..., c)` through `mlp_dim` hidden units.

    Dropout after each dense layer, or with `drops_output=False` only after the first.
    """

    mlp_dim: int
    activation: str = "gelu"
    dropout: float = 0.0
    dtype: Any = None
    initializer: str = "fan_in"
    drops_output: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        c = x.shape[-1]
        given = dict(dtype=self.dtype, initializer=self.initializer)
        x = Dense(self.hidden_features, **given, name="dense1")(x)
        dense2 = Dense(c, **given, name="dense2")
        if train and self.dropout:  # drawing again, in the backward pass, would take more time
            x = dense2(Dropout(self.dropout)(self.hidden(x), train))
        else:
            x = dense2(x, before=self.hidden)
        if not self.drops_output:
            return x
        return Dropout(self.dropout)(x, train)

    @property
    def hidden_features(self) -> int:
        """What the first dense layer puts out."""
        return self.mlp_dim

    def hidden(self, x: jax.Array) -> jax.Array:
        """`(..., hidden_features) -> (..., mlp_dim)`: the activation."""
        return activate(x, self.activation)


class GluMlp(Mlp):
    """Mlp whose hidden units are the product of a linear and an activated half (GLU variants).

    Shazeer 2020, arXiv:2002.05202.
    """

    @property
    def hidden_features(self) -> int:
        """What the first dense layer puts out."""
        return 2 * self.mlp_dim

    def hidden(self, x: jax.Array) -> jax.Array:
        """`(..., 2 · mlp_dim) -> (..., mlp_dim)`: x · activation(gate)."""
        x, gate = jnp.split(x, 2, axis=-1)
        return x * activate(gate, self.activation)
