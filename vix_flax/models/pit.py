"""PiT: ViT in stages; between two of them the map halves and the width doubles.

Heo et al. 2021, arXiv:2103.16302. (b, H, W, C) -> (b, num_classes)
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.checks import per_stage
from vix_flax.layers import Dense, DepthwiseConv, ModuleDef, UnfoldEmbed, build
from vix_flax.models.transformer import Transformer
from vix_flax.models.vix import ViX


class TokenPool(nn.Module):
    """`(b, 1 + h·w, c) -> (b, 1 + ⌈h/2⌉·⌈w/2⌉, 2c)`.

    The map goes through convolutions, the class token through a dense layer.
    """

    grid: tuple[int, int]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, _, c = x.shape
        cls = Dense(2 * c, dtype=self.dtype, name="cls")(x[:, :1])
        patches = x[:, 1:].reshape(b, *self.grid, c)
        halve = DepthwiseConv(3, 2, 1, multiplier=2, dtype=self.dtype, name="depthwise")
        patches = Dense(2 * c, dtype=self.dtype, name="dense")(halve(patches))
        return jnp.concatenate([cls, patches.reshape(b, -1, 2 * c)], axis=1)


class PiT(ViX, kw_only=True):
    """PiT (arXiv:2103.16302): ViT in `len(depth)` stages on overlapping patches, pools between.

    `mlp_dim` and `dim_head` are those of all stages.

    Attributes:
        dim: width of the first stage.
        depth: blocks of each stage.
        heads: an int, or one for each stage.
    """

    depth: tuple[int, ...]
    heads: int | tuple[int, ...]
    embed: ModuleDef = UnfoldEmbed
    positions: ClassVar[tuple[str, ...]] = ("learned", "none")
    unused: ClassVar[tuple[str, ...]] = ("mixer", "qkv_bias", "out_bias")
    pools: ClassVar[tuple[str, ...]] = ("cls",)
    attention_drops: ClassVar[str] = "both"

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        if not isinstance(self.depth, tuple):
            raise ValueError(
                f"depth={self.depth!r} must say the blocks of each stage, e.g. (2, 6, 4)"
            )
        super().check()
        per_stage(self, "heads", len(self.depth))

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return self.dim * 2 ** (len(self.depth) - 1)

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of the map in each stage."""
        grids = [self.grid]
        for _ in self.depth[1:]:
            rows, columns = grids[-1]
            grids.append((-(-rows // 2), -(-columns // 2)))
        return tuple(grids)

    def map_of(self, path: tuple[str, ...]) -> int | None:
        """Which of `grids` the parameter at `path` belongs to, if it has an entry a position."""
        return int(path[1].removeprefix("stages_")) if path[1].startswith("stages_") else 0

    def setup_encoder(self) -> None:
        """Stages, and the pools between them."""
        heads = per_stage(self, "heads", len(self.depth))
        self.stages = [
            build(
                self.rematted(Transformer),
                self,
                dim=self.dim * 2**i,
                depth=depth,
                heads=heads[i],
                final_norm=False,
            )
            for i, depth in enumerate(self.depth)
        ]
        self.token_pools = [TokenPool(grid, self.dtype) for grid in self.grids[:-1]]

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, n, dim) -> (b, n', num_features)`: through all stages."""
        x = tokens
        for i, stage in enumerate(self.stages):
            x = stage(self.token_pools[i - 1](x) if i else x, train)
        return x
