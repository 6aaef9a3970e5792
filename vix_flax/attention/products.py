"""Products and sums over many tokens, in the order in which XLA's CPU has little to turn round.

It turns a first factor round to sum over its rows, and transposes what a derivative asks for, each
in more time than the product itself takes; and it sums rows ten times slower than it multiplies
them by ones. Other devices take any order alike. (`benchmarks/attention.py`: gradients of Performer
and linear attention take two thirds to three quarters of the time.)
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def sum_over_tokens(large: jax.Array, small: jax.Array) -> jax.Array:
    """largeᵀ small: (…, n, r), (…, n, e) -> (…, r, e). Reverse mode only, no `jax.jvp`."""
    return jnp.einsum("...ne,...nr->...er", small, large).swapaxes(-1, -2)


def _forward(large, small):
    return sum_over_tokens(large, small), (large, small)


def _backward(saved, g):
    large, small = saved
    return jnp.einsum("...ne,...re->...nr", small, g), large @ g


sum_over_tokens.defvjp(_forward, _backward)


def along_rows(x: jax.Array, width: int) -> jax.Array:
    """Each number `width` times, (…, n) -> (…, n, width), of which the derivative is a product."""
    return jnp.matmul(x[..., None], jnp.ones((1, width), x.dtype), precision="highest")
