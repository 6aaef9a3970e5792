"""Activations by name, with the exact GELU that every published model uses."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.suggest import did_you_mean


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
    """x Φ(x), the erf form (arXiv:1606.08415); any shape, dtype kept.

    The derivative is written out, Φ(x) + x φ(x): differentiating the erf form as it stands keeps
    four arrays of x's size for the backward pass instead of one.
    """
    return x * (0.5 * (1 + jax.lax.erf(x * 0.5**0.5)))


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    cdf = 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))
    density = jnp.exp(-0.5 * x * x) * (2 * jnp.pi) ** -0.5
    return x * cdf, t * (cdf + x * density)


ACTIVATIONS = {"gelu": gelu, "relu": nn.relu, "hardswish": nn.hard_swish, "none": lambda x: x}


def activate(x: jax.Array, name: str) -> jax.Array:
    """Applies the activation of that name; shape and dtype kept."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}" + did_you_mean(name, ACTIVATIONS))
    return ACTIVATIONS[name](x)
