"""Convolution of a map; with a stride, and of a map that is tiny, as a plain matrix product."""

from typing import Any

import jax
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax.nn.initializers import Initializer

from vix_flax.layers.dense import fan_in_uniform
from vix_flax.layers.unfold import unfold, unfolded_side

# Positions along a side up to which the gradient of a strided convolution is slow on a CPU: 16 maps
# of 4 × 4 × 128 take 5.0 ms forward and backward, and 1.1 ms as a product.
FEW = 2


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
        sides = [unfolded_side(side, k, self.stride, p) for side in x.shape[1:3]]
        if self.stride > 1 and all(0 < side <= FEW for side in sides):
            columns = kernel.transpose(2, 0, 1, 3).reshape(-1, self.features)
            y = unfold(x, k, self.stride, p) @ columns
        else:
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                ((p, p), (p, p)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        return y if bias is None else y + bias
