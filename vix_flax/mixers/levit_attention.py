"""LeViT's attention: BatchNorm behind every projection, wide values, a bias for each offset.

Graham et al. 2021, arXiv:2104.01136. With `stride` 2 queries stand on every second row and column,
which shrinks the map. (b, h, w, c) -> (b, ⌈h/stride⌉, ⌈w/stride⌉, dim_out)
"""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.layers.activation import gelu
from vix_flax.layers.dense import Dense
from vix_flax.layers.dropout import Dropout
from vix_flax.layers.norm import BatchNorm
from vix_flax.layers.position_bias import DistanceBias


class LeViTAttention(nn.Module):
    """Any attention `core` in LeViT's projections.

    The learned bias is, as published, multiplied by √dim_key. Cores that form no scores go without
    it. The last BatchNorm starts at zero: the layer adds nothing to a residual at first.
    """

    core: nn.Module
    heads: int
    dim_out: int
    dim_key: int = 32
    dim_value: int = 64
    stride: int = 1
    out_dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        def normed(x, name, init=nn.initializers.ones):
            norm = BatchNorm(dtype=self.dtype, scale_init=init, name=f"norm_{name}")
            return norm(x, use_running_average=not train)

        def project(x, name, features):
            x = normed(Dense(self.heads * features, False, self.dtype, name=f"to_{name}")(x), name)
            return x.reshape(len(x), -1, self.heads, features)

        asking = x[:, :: self.stride, :: self.stride]
        q = project(asking, "q", self.dim_key)
        k, v = project(x, "k", self.dim_key), project(x, "v", self.dim_value)
        given = {}
        if getattr(self.core, "takes_bias", False):
            bias = DistanceBias(self.heads, x.shape[1:3], self.stride, name="distance_bias")
            given["bias"] = bias() * self.dim_key**0.5
        out = self.core(q, k, v, train=train, **given)
        out = gelu(out.reshape(*asking.shape[:3], -1))
        out = Dense(self.dim_out, dtype=self.dtype, name="to_out")(out)
        out = normed(out, "out", nn.initializers.zeros)
        return Dropout(self.out_dropout)(out, train)
