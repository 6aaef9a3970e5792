"""Re-attention: heads exchange their weights after the softmax, so that deep layers differ.

Zhou et al. 2021 (DeepViT), arXiv:2103.11886. Cost O(n·m·h·(d + h)).
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.attention.softmax import Mix, Softmax
from vix_flax.attention.talking_heads import mix_heads
from vix_flax.layers.norm import layer_norm


class ReAttention(Softmax):
    """Softmax attention whose weights are mixed by `(h, h)`, then normed over the heads.

    The weights of a query no longer sum to 1.
    """

    def head_mixing(self, heads: int) -> tuple[Mix, Mix]:
        """Nothing before the softmax; a mixture of the heads and a norm over them after."""
        mixture = self.param("mix_after", nn.initializers.normal(1.0), (heads, heads))
        scale = self.param("norm_scale", nn.initializers.ones, (heads,))
        bias = self.param("norm_bias", nn.initializers.zeros, (heads,))
        before, _ = super().head_mixing(heads)

        def after(weights: jax.Array) -> jax.Array:
            mixed = jnp.moveaxis(mix_heads(weights, mixture), 1, -1)
            return jnp.moveaxis(layer_norm(mixed, scale, bias, 1e-5), -1, 1)

        return before, after
