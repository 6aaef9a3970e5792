"""Normalisations with ε = 1e-5, whose derivatives remember their input and no copies of it.

What plain differentiation keeps (the centred and the normalised array) costs a CPU more in memory
traffic than in arithmetic: a fifth of an FNet training step. The price: reverse mode only, no
`jax.jvp`. Statistics are always float32, whatever the compute dtype.
"""

import math
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Normalises the last axis to mean 0 and variance 1, then scale and bias; returns float32.

    Kept for the backward pass are x, its mean and 1/σ.
    """
    return _layer_forward(x, scale, bias, epsilon)[0]


def _layer_forward(x, scale, bias, epsilon):
    mean = x.mean(axis=-1, dtype=jnp.float32, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(x - mean).mean(axis=-1, keepdims=True) + epsilon)
    return (x - mean) * inverse * scale + bias, (x, mean, inverse, scale)


def _layer_backward(epsilon, saved, g):
    x, mean, inverse, scale = saved
    normed = (x - mean) * inverse
    lead = tuple(range(g.ndim - 1))
    gs = g * scale
    shared = gs.mean(axis=-1, keepdims=True)
    along = (gs * normed).mean(axis=-1, keepdims=True)
    dx = (gs - shared - normed * along) * inverse
    return dx.astype(x.dtype), (g * normed).sum(lead), g.sum(lead)


layer_norm.defvjp(_layer_forward, _layer_backward)


class LayerNorm(nn.Module):
    """`(..., c) -> (..., c)`, arXiv:1607.06450; result in `dtype` (of the input, if None)."""

    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        return self.normalize(x, scale, bias).astype(self.dtype or x.dtype)

    def normalize(self, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        """The formula; the result is float32."""
        return layer_norm(x, scale, bias, self.epsilon)


class SigmaNorm(LayerNorm):
    """LayerNorm with ε added to σ, not to the variance: a slip of early CvT ports."""

    def normalize(self, x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        """The formula; the result is float32."""
        centred = x - x.mean(axis=-1, dtype=jnp.float32, keepdims=True)
        sigma = jnp.sqrt(jnp.square(centred).mean(axis=-1, keepdims=True))
        return centred / (sigma + self.epsilon) * scale + bias


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises every channel of `(..., c)` to mean 0 and variance 1, then scale and bias.

    Returns the result, and the mean and the variance `(c,)` that it has removed, all float32; no
    gradient comes from those two. Kept for the backward pass are x, its mean and 1/σ. Inside
    `shard_map` they are those of all devices, which meet once in either pass.
    """
    return _batch_forward(x, scale, bias, epsilon)[0]


def _batch_forward(x, scale, bias, epsilon):
    lead = tuple(range(x.ndim - 1))
    mean = x.mean(lead, dtype=jnp.float32)
    var = jnp.square(x - mean).mean(lead)
    if axes := _axes_by_hand():
        means, variances = jax.lax.all_gather(jnp.stack([mean, var]), axes, axis=1)
        mean = means.mean(axis=0)
        var = variances.mean(axis=0) + jnp.square(means - mean).mean(axis=0)
    inverse = jax.lax.rsqrt(var + epsilon)
    return ((x - mean) * (inverse * scale) + bias, mean, var), (x, mean, inverse, scale)


def _batch_backward(epsilon, saved, given):
    x, mean, inverse, scale = saved
    g, *_ = given
    normed = (x - mean) * inverse
    lead = tuple(range(g.ndim - 1))
    count = math.prod(g.shape[:-1])
    along, total = (g * normed).sum(lead), g.sum(lead)
    mean_along, mean_g = along / count, total / count
    if axes := _axes_by_hand():  # scale's and bias's gradients stay those of this device's images
        mean_along, mean_g = jax.lax.pmean(jnp.stack([mean_along, mean_g]), axes)
    dx = (g - mean_g - normed * mean_along) * (inverse * scale)
    return dx.astype(x.dtype), along, total


def _axes_by_hand():
    """Of the mesh, inside `shard_map`: each device has some of the batch, as large as any other."""
    return jax.sharding.get_abstract_mesh().manual_axes


batch_norm.defvjp(_batch_forward, _batch_backward)


class BatchNorm(nn.Module):
    """Normalisation of `(..., c)` over all axes but the last (arXiv:1502.03167).

    Constants are PyTorch's and variables have Flax's names. The running variance is the biased one,
    as Flax's is; PyTorch keeps the unbiased. `dtype` is the result's (None: the input's). Inside
    `shard_map` a batch is that of all devices.
    """

    momentum: float = 0.9  # what the running statistics keep of themselves
    epsilon: float = 1e-5
    dtype: Any = None
    scale_init: Initializer = nn.initializers.ones

    normalizes_over_devices: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool) -> jax.Array:
        """By running statistics, or by the batch's, which then move the running ones a little."""
        c = x.shape[-1]
        scale = self.param("scale", self.scale_init, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (c,))
        var = self.variable("batch_stats", "var", jnp.ones, (c,))
        if use_running_average:
            inverse = jax.lax.rsqrt(var.value + self.epsilon)
            y = (x - mean.value) * (inverse * scale) + bias
        else:
            y, *of_batch = batch_norm(x, scale, bias, self.epsilon)
            if not self.is_initializing():
                for running, new in zip((mean, var), of_batch, strict=True):
                    running.value = self.momentum * running.value + (1 - self.momentum) * new
        return y.astype(self.dtype or x.dtype)
