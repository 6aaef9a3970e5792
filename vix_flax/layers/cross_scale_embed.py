"""Cross-scale embedding: convolutions of several sizes around the same points (CrossFormer).

Wang et al. 2021, arXiv:2108.00154.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.layers.conv import Conv


class CrossScaleEmbed(nn.Module):
    """`(b, H, W, C) -> (b, H/stride, W/stride, dim)`.

    The smallest kernel gets half of the channels, the next a quarter and so on; the largest gets
    what is left.
    """

    dim: int
    kernel_sizes: tuple[int, ...]
    stride: int
    dtype: Any = None

    def check(self) -> None:
        """Raises ValueError where the scales' maps would not lie on one another."""
        bad = [k for k in self.kernel_sizes if k < self.stride or (k - self.stride) % 2]
        if bad or not self.kernel_sizes:
            raise ValueError(
                f"cross_embed_kernel_sizes={self.kernel_sizes} with stride {self.stride}: each "
                "kernel must be the stride or larger by an even number"
            )
        if self.dim < 2 ** (len(self.kernel_sizes) - 1):
            raise ValueError(f"dim={self.dim} is too small for {len(self.kernel_sizes)} scales")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernels = sorted(self.kernel_sizes)
        widths = [self.dim // 2**i for i in range(1, len(kernels))]
        widths.append(self.dim - sum(widths))
        maps = [
            Conv(width, k, self.stride, (k - self.stride) // 2, dtype=self.dtype, name=f"conv{i}")(
                x
            )
            for i, (k, width) in enumerate(zip(kernels, widths, strict=True))
        ]
        return jnp.concatenate(maps, axis=-1)
