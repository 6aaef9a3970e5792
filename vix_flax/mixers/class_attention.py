"""Class attention: a few tokens, normally one class token, ask themselves and the patches.

Touvron et al. 2021 (CaiT), arXiv:2103.17239; Chen et al. 2021 (CrossViT), arXiv:2103.14899.
x (b, n, c), context (b, m, c) -> (b, n, c)
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.layers.dense import Dense
from vix_flax.layers.dropout import Dropout


class ClassAttention(nn.Module):
    """Queries from `x`, keys and values from `x` and the context together, through any `core`.

    As published, whoever calls has normed `x` and not the context.
    """

    core: nn.Module
    heads: int
    dim_head: int = 64
    out_dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array, *, train: bool = False) -> jax.Array:
        b, n, c = x.shape
        h, d = self.heads, self.dim_head
        asked = jnp.concatenate([x, context.astype(x.dtype)], axis=1)
        q = Dense(h * d, False, self.dtype, name="to_q")(x).reshape(b, n, h, d)
        kv = Dense(2 * h * d, False, self.dtype, name="to_kv")(asked).reshape(b, -1, 2, h, d)
        out = self.core(q, kv[:, :, 0], kv[:, :, 1], train=train).reshape(b, n, h * d)
        out = Dense(c, dtype=self.dtype, name="to_out")(out)
        return Dropout(self.out_dropout)(out, train)
