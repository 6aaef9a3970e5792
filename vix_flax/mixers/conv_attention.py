"""Attention behind depth-wise convolutions: neighbours are mixed before queries meet keys (CvT).

Wu et al. 2021, arXiv:2103.15808. Keys and values come from a strided convolution, so there are
fewer of them than queries. (b, h, w, c) -> (b, h, w, c)
"""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.layers.dense import Dense
from vix_flax.layers.depthwise import DepthwiseConv
from vix_flax.layers.dropout import Dropout
from vix_flax.layers.norm import BatchNorm


class ConvProjection(nn.Module):
    """Depth-wise convolution, BatchNorm, dense layer, none with a bias.

    `(b, h, w, c) -> (b, ⌈h/stride⌉ · ⌈w/stride⌉, features)` for odd kernels
    """

    features: int
    kernel_size: int
    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        k = self.kernel_size
        conv = DepthwiseConv(
            k, self.stride, k // 2, use_bias=False, dtype=self.dtype, name="depthwise"
        )
        x = BatchNorm(dtype=self.dtype, name="norm")(conv(x), use_running_average=not train)
        x = x.reshape(len(x), -1, x.shape[-1])
        return Dense(self.features, False, self.dtype, name="dense")(x)


class ConvAttention(nn.Module):
    """Any attention `core` between convolutional projections; `kv_proj_stride` thins the keys."""

    core: nn.Module
    heads: int
    dim_head: int = 64
    proj_kernel: int = 3
    kv_proj_stride: int = 2
    out_dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        b, _, _, c = x.shape
        h, d = self.heads, self.dim_head
        project = ConvProjection(h * d, self.proj_kernel, dtype=self.dtype, name="to_q")
        q = project(x, train).reshape(b, -1, h, d)
        project = ConvProjection(
            2 * h * d, self.proj_kernel, self.kv_proj_stride, self.dtype, name="to_kv"
        )
        kv = project(x, train).reshape(b, -1, 2, h, d)
        out = self.core(q, kv[:, :, 0], kv[:, :, 1], train=train).reshape(*x.shape[:3], h * d)
        out = Dense(c, dtype=self.dtype, name="to_out")(out)
        return Dropout(self.out_dropout)(out, train)
