"""Tokens that stand for no patch."""

import jax
import jax.numpy as jnp


def prepend_token(token: jax.Array, x: jax.Array) -> jax.Array:
    """`token (1, 1, c)` in front of every sequence of `x (b, n, c)`: `-> (b, 1 + n, c)`."""
    first = jnp.broadcast_to(token.astype(x.dtype), (len(x), 1, x.shape[-1]))
    return jnp.concatenate([first, x], axis=1)
