"""LayerScale: a residual branch starts almost silent, each channel with its own loudness (CaiT).

Touvron et al. 2021, arXiv:2103.17239.
"""

import jax
from flax import linen as nn


class LayerScale(nn.Module):
    """`(..., c) -> (..., c)`: times a learned factor a channel, `initial` at first."""

    initial: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.constant(self.initial), (x.shape[-1],))
        return x * scale.astype(x.dtype)
