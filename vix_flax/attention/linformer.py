"""Linformer: keys and values are projected along the tokens to k rows before softmax attention.

Wang et al. 2020, arXiv:2006.04768. Cost O((n + m)·k·d); the token count is fixed at `init`.
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn

from vix_flax.attention.softmax import attention_weights
from vix_flax.attention.tiled import tiled_attention
from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers.dense import fan_in_uniform
from vix_flax.layers.dropout import Dropout


class Linformer(nn.Module):
    """softmax(q (Eᵀk)ᵀ/√d) (Fᵀv), E and F `(m, k)` learned; `share_kv` uses E for both.

    `attention_dropout` acts on the weights. With one key/value head, heads are folded into the
    queries, so that nothing is copied for each head.
    """

    k: int = 64
    share_kv: bool = True
    attention_dropout: float = 0.0
    dtype: Any = None

    rows_are_independent: ClassVar[bool] = True

    def __post_init__(self):
        require_positive_ints(self, "k")
        require_rates(self, "attention_dropout")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, q: jax.Array, k: jax.Array, v: jax.Array, *, train: bool = False
    ) -> jax.Array:
        h, d, m = *q.shape[2:], k.shape[1]
        project_keys = self._projection("proj_k", m)
        project_values = project_keys if self.share_kv else self._projection("proj_v", m)
        k = jnp.einsum("bmhd,mk->bkhd", k, project_keys.astype(k.dtype))
        v = jnp.einsum("bmhe,mk->bkhe", v, project_values.astype(v.dtype))

        one_head = k.shape[2] == 1
        if one_head:
            q = rearrange(q, "b n h d -> b (n h) 1 d")
        q = q * d**-0.5
        if self.attention_dropout and train:
            weights = Dropout(self.attention_dropout)(attention_weights(q, k), train)
            out = jnp.einsum("bhnk,bkhe->bnhe", weights.astype(v.dtype), v)
        else:
            out = tiled_attention(q, k, v)
        return rearrange(out, "b (n h) 1 e -> b n h e", h=h) if one_head else out

    def factors(self, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        """softmax(q (Eᵀk)ᵀ/√d) `(b, h, n, k)` and Fᵀ `(b, h, k, m)`."""
        project_keys = self.get_variable("params", "proj_k")
        project_values = project_keys if self.share_kv else self.get_variable("params", "proj_v")
        k = jnp.einsum("bmhd,mk->bkhd", k, project_keys.astype(k.dtype))
        weights = attention_weights(q * q.shape[-1] ** -0.5, k)
        values = project_values.T
        return weights, jnp.broadcast_to(values, (*weights.shape[:2], *values.shape))

    def _projection(self, name, tokens):
        if self.has_variable("params", name):
            known = self.get_variable("params", name).shape[0]
            if known != tokens:
                raise ValueError(
                    f"Linformer was initialised for {known} tokens and got {tokens}: its "
                    "projection along the tokens has a fixed length; resize the images, carry it "
                    "over with vix_flax.resize_positions, or use an attention for any length: "
                    "nystrom, performer, linear, softmax"
                )
        return self.param(name, fan_in_uniform(self.k), (tokens, self.k))
