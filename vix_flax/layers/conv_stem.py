"""3 × 3 convolutions instead of patches: the stems of Hybrid models and of LeViT."""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.layers.activation import activate
from vix_flax.layers.conv import Conv


class ConvStem(nn.Module):
    """`(b, H, W, C) -> (b, ⌈H/stride⌉, ⌈W/stride⌉, dim)` through 32 and 64 channels.

    The Hybrid models' (arXiv:2107.02239). As published there is no activation between the
    convolutions: the three together are one linear map with a 7 × 7 window, factored.
    """

    dim: int
    patch_size: tuple[int, int] = (1, 1)
    stride: int = 1
    activation: str = "none"
    dtype: Any = None

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(channels, stride) of each convolution."""
        return [(32, self.stride), (64, 1), (self.dim, 1)]

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the map that an image becomes.

        Raises:
            ValueError: `patch_size` is not 1; the stem makes a token of every (strided) pixel.
        """
        if self.patch_size != (1, 1):
            raise ValueError(
                f"patch_size={self.patch_size} does not work with a convolutional stem, which "
                "cuts no patches: use patch_size=1, or a patch embedding"
            )
        rows, columns = image_size
        for _, stride in self.layers:
            rows, columns = -(-rows // stride), -(-columns // stride)
        return rows, columns

    @nn.compact
    def __call__(self, img: jax.Array) -> jax.Array:
        x = img
        for i, (features, stride) in enumerate(self.layers, 1):
            x = Conv(features, 3, stride, padding=1, dtype=self.dtype, name=f"conv{i}")(x)
            x = activate(x, self.activation)
        return x


class StridedConvStem(ConvStem):
    """ConvStem whose first convolution halves the map: HybridMLPMixer's."""

    stride: int = 2


class ReluConvStem(ConvStem):
    """ConvStem with a ReLU after every convolution: nanovit's."""

    activation: str = "relu"


class LeViTStem(ConvStem):
    """Four convolutions that each halve the map, through 32, 64 and 128 channels.

    Graham et al. 2021, arXiv:2104.01136; as published here, no norm or activation between them.
    """

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(channels, stride) of each convolution."""
        return [(32, 2), (64, 2), (128, 2), (self.dim, 2)]
