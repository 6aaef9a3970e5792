"""The "efficient" ViT: patches, positions and a head around any encoder module.

Wang, github.com/lucidrains/vit-pytorch; e.g. with a Nyströmformer, arXiv:2102.03902.
(b, H, W, C) -> (b, num_classes)
"""

from typing import ClassVar

import jax
from flax import linen as nn

from vix_flax.layers import ModuleDef, NormPatchEmbed
from vix_flax.models.transformer import check_encoder, run_encoder
from vix_flax.models.vix import ViX


class EfficientViT(ViX, kw_only=True):
    """ViT whose encoder is a module of your choice (arXiv:2010.11929).

    Attributes:
        transformer: maps (b, n, dim) to the same shape, with or without `train=`: `Transformer`,
            `Nystromformer`, `Encoder`, or your own. Depth, heads, MLPs and attention are its
            affair, and giving them here is an error.
    """

    transformer: nn.Module
    embed: ModuleDef = NormPatchEmbed
    depth: int | None = None
    heads: int | None = None
    mlp_dim: int | None = None
    dim_head: int | None = None
    positions: ClassVar[tuple[str, ...]] = ("learned", "none")
    unused: ClassVar[tuple[str, ...]] = (
        "depth", "heads", "mlp_dim", "dim_head", "mixer", "dropout", "qkv_bias", "out_bias",
    )  # fmt: skip
    unused_hint: ClassVar[str] = "; it is the affair of the transformer, e.g. Transformer(depth=6)"

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        check_encoder(self.transformer, self.dim)

    @property
    def fixed_attention(self) -> str:
        """Why `attention` cannot be chosen; empty where it can."""
        return "the encoder has its own; give transformer=Transformer(attention=…)"

    def setup_encoder(self) -> None:
        """Nothing: the encoder is given."""

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, n, dim) -> (b, n, dim)`: through the transformer."""
        return run_encoder(self.transformer, tokens, train, self.remat)
