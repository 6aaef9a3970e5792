"""Stochastic depth: whole residual branches left out at random, by image (arXiv:1603.09382)."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class DropPath(nn.Module):
    """`(b, …) -> (b, …)`: each image's branch is 0 with probability `rate`, else scaled to keep the
    mean. The identity unless `train`; draws from the stream `dropout`.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        if not train or not self.rate:
            return x
        shape = (len(x), *(1,) * (x.ndim - 1))
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, shape)
        return jnp.where(keep, x / (1 - self.rate), 0)
