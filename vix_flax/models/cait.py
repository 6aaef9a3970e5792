"""CaiT: a class token that enters late, talking heads, and branches that start almost silent.

Touvron et al. 2021, arXiv:2103.17239. (b, H, W, C) -> (b, num_classes)
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.attention import TalkingHeads
from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers import ModuleDef, NormPatchEmbed, build
from vix_flax.mixers import ClassAttention
from vix_flax.models.vix import ViX


class CaiT(ViX, kw_only=True):
    """CaiT (arXiv:2103.17239): talking heads, and `cls_depth` last blocks of the class token alone.

    Attributes:
        cls_depth: blocks in which the class token asks the patches; `depth` counts those of the
            patches among themselves.
        layer_dropout: probability that a whole block is left out in training, for the batch at
            once; one of each kind always stays. Draws from the stream `dropout`.
        attention: of both kinds of blocks; other than `TalkingHeads`, heads do not talk.
    """

    cls_depth: int
    layer_dropout: float = 0.0
    embed: ModuleDef = NormPatchEmbed
    attention: ModuleDef = TalkingHeads
    pools: ClassVar[tuple[str, ...]] = ("cls",)
    class_token: ClassVar[bool] = False  # none among the patches
    attention_drops: ClassVar[str] = "both"

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        require_positive_ints(self, "cls_depth")
        require_rates(self, "layer_dropout")

    def setup_encoder(self) -> None:
        """Blocks of the patches, the class token, its blocks."""

        def blocks(count, mixer):
            block = self.rematted(self.block)
            scales = map(initial_scale, range(1, count + 1))
            return [
                build(block, self, mixer=mixer(), mlp_dim=self.mlp_dim, layer_scale=scale)
                for scale in scales
            ]

        self.blocks = blocks(self.depth, self._mixer)
        self.cls_token = self.param("cls_token", nn.initializers.normal(1.0), (1, 1, self.dim))
        self.cls_blocks = blocks(
            self.cls_depth, lambda: build(ClassAttention, self, core=self.core())
        )

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, n, dim) -> (b, 1 + n, dim)`: the class token, then the patches it asked."""
        patches = tokens
        for block, stays in zip(self.blocks, self._staying(self.depth, train), strict=True):
            patches = _choose(stays, block(patches, train), patches)
        cls = jnp.broadcast_to(self.cls_token.astype(tokens.dtype), (len(tokens), 1, self.dim))
        for block, stays in zip(self.cls_blocks, self._staying(self.cls_depth, train), strict=True):
            cls = _choose(stays, block(cls, train, patches), cls)
        return jnp.concatenate([cls, patches], axis=1)

    def _staying(self, depth, train):
        if not train or not self.layer_dropout:
            return [True] * depth
        draw, survivor = jax.random.split(self.make_rng("dropout"))
        stays = jax.random.bernoulli(draw, 1 - self.layer_dropout, (depth,))
        alone = jnp.arange(depth) == jax.random.randint(survivor, (), 0, depth)
        return jnp.where(stays.any(), stays, alone)


def initial_scale(layer: int) -> float:
    """Where LayerScale starts in the `layer`-th block, counted from 1 (not, as in the paper, by
    the depth of the whole)."""
    if layer <= 18:
        return 0.1
    return 1e-5 if layer <= 24 else 1e-6


def _choose(stays, x, otherwise):
    return x if stays is True else jnp.where(stays, x, otherwise)
