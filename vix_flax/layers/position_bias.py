"""What is added to attention scores for where two positions of a map stand to each other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vix_flax.layers.dense import Dense
from vix_flax.layers.norm import LayerNorm


class DistanceBias(nn.Module):
    """A learned bias for each head and absolute offset (|Δrow|, |Δcolumn|): LeViT's.

    Graham et al. 2021, arXiv:2104.01136. Queries stand on every `stride`-th row and column of the
    map of keys. () -> (heads, queries, keys)
    """

    heads: int
    grid: tuple[int, int]
    stride: int = 1

    @nn.compact
    def __call__(self) -> jax.Array:
        rows, columns = self.grid
        table = self.param("table", nn.initializers.normal(1.0), (rows * columns, self.heads))
        down = np.abs(np.arange(0, rows, self.stride)[:, None] - np.arange(rows))
        across = np.abs(np.arange(0, columns, self.stride)[:, None] - np.arange(columns))
        offset = down[:, None, :, None] * columns + across[None, :, None, :]
        return table[offset.reshape(down.shape[0] * across.shape[0], -1)].transpose(2, 0, 1)


class DynamicPositionBias(nn.Module):
    """A bias computed from the offset by a small MLP, the same for all heads: CrossFormer's.

    Wang et al. 2021, arXiv:2108.00154. As published, the row stride of the look-up is that of a
    table two narrower than the one it reads, so an offset gets the bias of another one; still
    one for each. () -> (1, window², window²)
    """

    dim: int
    window: int
    dtype: Any = None

    @nn.compact
    def __call__(self) -> jax.Array:
        w = self.window
        steps = np.arange(-w, w + 1, dtype=np.float32)
        x = jnp.asarray(np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2))
        for i in (1, 2, 3):
            x = Dense(self.dim, dtype=self.dtype, name=f"dense{i}")(x)
            x = nn.relu(LayerNorm(dtype=self.dtype, name=f"norm{i}")(x))
        table = Dense(1, dtype=self.dtype, name="dense4")(x)[:, 0]
        rows, columns = np.divmod(np.arange(w * w), w)
        down, across = rows[:, None] - rows, columns[:, None] - columns
        return table[(down + w - 1) * (2 * w - 1) + across + w - 1][None]
