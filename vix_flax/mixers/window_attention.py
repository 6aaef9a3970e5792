"""Attention within windows of a map: of neighbours, or of positions far apart (CrossFormer).

Wang et al. 2021, arXiv:2108.00154. Cost O(n·w²·d) for windows of side w. (b, h, w, c) -> the same
"""

from typing import Any

import jax
import numpy as np
from einops import rearrange
from flax import linen as nn

from vix_flax.layers.position_bias import DynamicPositionBias

SHORT = "b (h p) (w q) c -> (b h w) p q c"  # a window is a tile of the map
LONG = "b (p h) (q w) c -> (b h w) p q c"  # a window takes every h-th row and w-th column


class WindowAttention(nn.Module):
    """`attention`, a mixer such as `SelfAttention`, in each `window` × `window` group of positions.

    `long` groups positions as far apart as the map allows, otherwise neighbours. A bias computed
    from the offset by an MLP of width `bias_dim` is added to the scores; attention cores that form
    no scores go without.
    """

    attention: nn.Module
    window: int
    bias_dim: int
    long: bool = False
    dtype: Any = None

    def positions(self, height: int, width: int) -> np.ndarray:
        """`(windows, window²)`: which positions of the map, counted row by row, each window has."""
        grid = np.arange(height * width).reshape(1, height, width, 1)
        pattern = LONG if self.long else SHORT
        return rearrange(grid, pattern, p=self.window, q=self.window).reshape(-1, self.window**2)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        (height, width), side = x.shape[1:3], self.window
        if height % side or width % side:
            raise ValueError(
                f"a map of {height} × {width} positions has no whole windows of {side} × {side}: "
                "use images whose map is a multiple of the window, or another window size"
            )
        pattern = LONG if self.long else SHORT
        bias = None
        if getattr(self.attention.core, "takes_bias", False):
            bias = DynamicPositionBias(self.bias_dim, side, self.dtype, name="position_bias")()
        windows = rearrange(x, pattern, p=side, q=side)
        mixed = self.attention(windows, train=train, bias=bias)
        back = " -> ".join(reversed(pattern.split(" -> ")))
        return rearrange(mixed, back, h=height // side, w=width // side)
