"""Convolution of a map; on a CPU its derivative is written out as plain matrix products.

XLA's CPU leaves the gradients of a convolution to a slow loop wherever they stand in a `scan`, as
they do in a training step that works through its batch in parts: those of 64 to 128 channels, 3
× 3, at 32 × 32 pixels take 72 ms an image; 2.5 outside of a loop, and 2 anywhere as products.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax.nn.initializers import Initializer

from vix_flax.layers.dense import fan_in_uniform


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`(b, h, w, c)`, zero-padded on all sides, with `(k, k, c, features)`; reverse mode only."""
    return _convolve(x, kernel, stride, padding)


def _convolve(x, kernel, stride, padding):
    both = (padding, padding)
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (both, both), dimension_numbers=layout
    )


def _forward(x, kernel, stride, padding):
    return _convolve(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, saved, g):
    if jax.default_backend() != "cpu":
        return jax.vjp(partial(_convolve, stride=stride, padding=padding), *saved)[1](g)
    x, kernel = saved
    b, height, width, features = g.shape
    k, _, c, _ = kernel.shape
    product = partial(jnp.matmul, preferred_element_type=jnp.float32)
    along = lambda first, count: slice(first, first + (count - 1) * stride + 1, stride)
    seen = lambda i, j: (slice(None), along(i, height), along(j, width))  # by a tap of the kernel

    sides = (0, 0), (padding, padding), (padding, padding), (0, 0)
    x_padded = jnp.pad(x, sides)
    to_padded, to_kernel = jnp.zeros(x_padded.shape, jnp.float32), []
    g = g.reshape(-1, features)
    for i in range(k):  # a row of taps at a time: all of them would take k times the memory
        windows = jnp.concatenate([x_padded[seen(i, j)] for j in range(k)], axis=-1)
        to_kernel.append(product(windows.reshape(-1, k * c).T, g).reshape(k, c, features))
        to_windows = product(g, kernel[i].reshape(k * c, features).T)
        to_windows = to_windows.reshape(b, height, width, k, c)
        for j in range(k):
            to_padded = to_padded.at[seen(i, j)].add(to_windows[..., j, :])
    inside = (slice(padding, padding + side) for side in x.shape[1:3])
    to_x = to_padded[:, *inside]
    return to_x.astype(x.dtype), jnp.stack(to_kernel).astype(kernel.dtype)


convolve.defvjp(_forward, _backward)


class Conv(nn.Module):
    """Convolution of a map, `(b, h, w, c) -> (b, h', w', features)`, with symmetric zero padding.

    The padding is always explicit: 'SAME' pads (0, 1) where stride 2 meets an even size, and
    PyTorch's models do not.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    kernel_init: Initializer | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, k, p = x.shape[-1], self.kernel_size, self.padding
        init = fan_in_uniform(c * k * k)
        kernel = self.param("kernel", self.kernel_init or init, (k, k, c, self.features))
        bias = self.param("bias", init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = convolve(x, kernel, self.stride, p)
        return y if bias is None else y + bias
