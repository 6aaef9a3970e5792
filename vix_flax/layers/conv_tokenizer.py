"""Convolution, ReLU and max-pooling, once or more: the tokens of compact transformers (CCT).

Hassani et al. 2021, arXiv:2104.05704.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.layers.conv import Conv


class ConvTokenizer(nn.Module):
    """`(b, H, W, C) -> (b, h, w, embedding_dim)`; `stride` is an int or one for each layer.

    Convolutions have no bias and `in_planes` channels between them, drawn as by He et al.
    (arXiv:1502.01852).
    """

    embedding_dim: int
    n_conv_layers: int = 1
    kernel_size: int = 7
    stride: int | tuple[int, ...] = 2
    padding: int = 3
    pooling_kernel_size: int = 3
    pooling_stride: int = 2
    pooling_padding: int = 1
    in_planes: int = 64
    dtype: Any = None

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride of each layer.

        Raises:
            ValueError: there are fewer of them than layers.
        """
        one = isinstance(self.stride, int)
        strides = (self.stride,) * self.n_conv_layers if one else tuple(self.stride)
        if len(strides) < self.n_conv_layers:
            raise ValueError(f"stride={self.stride} must have {self.n_conv_layers} entries")
        return strides[: self.n_conv_layers]

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the map that an image becomes.

        Raises:
            ValueError: nothing is left of it.
        """
        sides = image_size
        for stride in self.strides:
            sides = [(s + 2 * self.padding - self.kernel_size) // stride + 1 for s in sides]
            pooled = self.pooling_kernel_size - 2 * self.pooling_padding
            sides = [(s - pooled) // self.pooling_stride + 1 for s in sides]
        if min(sides) < 1:
            raise ValueError(f"image_size={image_size} is too small for this tokenizer")
        return sides[0], sides[1]

    @nn.compact
    def __call__(self, img: jax.Array) -> jax.Array:
        x = img
        kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        pool, p = self.pooling_kernel_size, self.pooling_padding
        for i, stride in enumerate(self.strides, 1):
            last = i == self.n_conv_layers
            x = Conv(
                self.embedding_dim if last else self.in_planes,
                self.kernel_size,
                stride,
                self.padding,
                use_bias=False,
                kernel_init=kernel_init,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            x = nn.max_pool(
                jnp.maximum(x, 0), (pool, pool), (self.pooling_stride,) * 2, ((p, p), (p, p))
            )
        return x
