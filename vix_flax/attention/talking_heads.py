"""Talking-heads attention: heads exchange their scores before the softmax and their weights after.

Shazeer et al. 2020, arXiv:2003.02436; in CaiT, arXiv:2103.17239. Cost O(n·m·h·(d + h)).
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.attention.softmax import Mix, Softmax


class TalkingHeads(Softmax):
    """Softmax attention between two learned `(h, h)` mixtures of the heads."""

    def head_mixing(self, heads: int) -> tuple[Mix, Mix]:
        """Mixtures of the heads on both sides of the softmax."""
        before, after = (
            self.param(name, nn.initializers.normal(1.0), (heads, heads))
            for name in ("mix_before", "mix_after")
        )
        return (lambda scores: mix_heads(scores, before)), (
            lambda weights: mix_heads(weights, after)
        )


def mix_heads(x: jax.Array, mixture: jax.Array) -> jax.Array:
    """`(b, h, n, m)`, `(h, g)` -> `(b, g, n, m)`, each image by itself: in a product of all, XLA's
    CPU brings the scores of a head together first, and takes four times as long. Of one image they
    are together (and 4,096 × 4,096 scores as one axis take twice as long)."""
    b, h, n, m = x.shape
    if b == 1:
        return jnp.einsum("bhnm,hg->bgnm", x, mixture)
    mixture = jnp.broadcast_to(mixture, (b, *mixture.shape))
    return jnp.einsum("bhi,bhg->bgi", x.reshape(b, h, n * m), mixture).reshape(b, -1, n, m)
