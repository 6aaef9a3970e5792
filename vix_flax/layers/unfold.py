"""Overlapping patches: every k × k window of a map becomes one token.

A window is flattened as (channel, row, column), column fastest, as PyTorch's `Unfold` does.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.layers.dense import Dense


def unfolded_side(side: int, kernel: int, stride: int, padding: int = 0) -> int:
    """How many windows fit along a side."""
    return (side + 2 * padding - kernel) // stride + 1


def unfold(x: jax.Array, kernel: int, stride: int, padding: int = 0) -> jax.Array:
    """`(b, h, w, c) -> (b, h', w', c · kernel²)`, zero-padded on all sides."""
    b, height, width, c = x.shape
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = (unfolded_side(side, kernel, stride, padding) for side in (height, width))
    windows = [
        x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(kernel)
        for j in range(kernel)
    ]
    return jnp.stack(windows, axis=-1).reshape(b, rows, columns, c * kernel**2)


class UnfoldEmbed(nn.Module):
    """`(b, H, W, C) -> (b, h, w, dim)`: a dense layer on p × p windows half a patch apart (PiT)."""

    dim: int
    patch_size: tuple[int, int]
    dtype: Any = None

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the map that an image becomes.

        Raises:
            ValueError: patches are not square and larger than 1, or do not tile the image.
        """
        p, q = self.patch_size
        if p != q or p < 2:
            raise ValueError(f"patch_size={self.patch_size} must be square, at least 2")
        if any(side % p for side in image_size):
            raise ValueError(f"patch_size={p} does not divide image_size={image_size}")
        rows, columns = (unfolded_side(side, p, p // 2) for side in image_size)
        return rows, columns

    @nn.compact
    def __call__(self, img: jax.Array) -> jax.Array:
        p = self.patch_size[0]
        return Dense(self.dim, dtype=self.dtype, name="dense")(unfold(img, p, p // 2))
