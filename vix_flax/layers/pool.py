"""Pooling of tokens by learned weights (CCT, arXiv:2104.05704)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.layers.dense import Dense


class SequencePool(nn.Module):
    """`(b, n, c) -> (b, c)`: the tokens weighed by the softmax of one learned score each."""

    initializer: str = "fan_in"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scores = Dense(1, dtype=self.dtype, initializer=self.initializer, name="score")(x)
        weights = nn.softmax(scores.astype(jnp.float32), axis=1).astype(x.dtype)
        return jnp.einsum("bnk,bnc->bc", weights, x)
