"""Images cut into patches, each patch one token: ViT's embedding (arXiv:2010.11929).

A patch is flattened as (row, column, channel), channel fastest; patches come row by row.
"""

from typing import Any

import jax
from einops import rearrange
from flax import linen as nn

from vix_flax.layers.activation import activate
from vix_flax.layers.dense import Dense
from vix_flax.layers.norm import LayerNorm


class PatchEmbed(nn.Module):
    """`(b, H, W, C) -> (b, H/p, W/q, dim)`: one dense layer on each p × q patch."""

    dim: int
    patch_size: tuple[int, int]
    dtype: Any = None

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the map that an image becomes.

        Raises:
            ValueError: the patches do not tile the image.
        """
        (height, width), (p, q) = image_size, self.patch_size
        if height % p or width % q:
            raise ValueError(
                f"patch_size={self.patch_size} does not divide image_size={image_size}: "
                "each side must be a multiple of the patch's"
            )
        return height // p, width // q

    @nn.compact
    def __call__(self, img: jax.Array) -> jax.Array:
        p, q = self.patch_size
        patches = rearrange(img, "b (h p) (w q) c -> b h w (p q c)", p=p, q=q)
        return self.embed(patches)

    def embed(self, patches: jax.Array) -> jax.Array:
        """`(b, h, w, p·q·C) -> (b, h, w, dim)`: what variants replace."""
        return Dense(self.dim, dtype=self.dtype, name="dense")(patches)


class NormPatchEmbed(PatchEmbed):
    """PatchEmbed between two LayerNorms: the form of the pip package and of later vit-pytorch.

    A patch of one grey pixel is not normed before the dense layer: norming one number gives zero.
    """

    def embed(self, patches: jax.Array) -> jax.Array:
        """`(b, h, w, p·q·C) -> (b, h, w, dim)`."""
        x = patches
        if x.shape[-1] > 1:
            x = LayerNorm(dtype=self.dtype, name="norm_in")(x)
        x = Dense(self.dim, dtype=self.dtype, name="dense")(x)
        return LayerNorm(dtype=self.dtype, name="norm_out")(x)


class GeluPatchEmbed(PatchEmbed):
    """PatchEmbed, GELU, LayerNorm: the stem of the ImageNet-size Hybrid ViN."""

    def embed(self, patches: jax.Array) -> jax.Array:
        """`(b, h, w, p·q·C) -> (b, h, w, dim)`."""
        x = activate(Dense(self.dim, dtype=self.dtype, name="dense")(patches), "gelu")
        return LayerNorm(dtype=self.dtype, name="norm_out")(x)
