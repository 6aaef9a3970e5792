"""CrossViT: two sizes of patches, two transformers, and class tokens that ask the other's patches.

Chen et al. 2021, arXiv:2103.14899. (b, H, W, C) -> (b, num_classes)
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers import (
    Dense,
    Dropout,
    LayerNorm,
    ModuleDef,
    NormPatchEmbed,
    build,
    prepend_token,
)
from vix_flax.mixers import ClassAttention
from vix_flax.models.backbone import AttentionBackbone
from vix_flax.models.image import check_image, pair
from vix_flax.models.transformer import Transformer
from vix_flax.models.vix import Head

BRANCHES = ("sm", "lg")
Pair = tuple[jax.Array, jax.Array]  # of the small-patch and of the large-patch branch


class PatchTokens(nn.Module):
    """`(b, H, W, C) -> (b, 1 + n, dim)`: patches, class token in front, learned positions."""

    dim: int
    patch_size: tuple[int, int]
    emb_dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, img: jax.Array, train: bool = False) -> jax.Array:
        x = build(NormPatchEmbed, self).clone(parent=self, name="embedding")(img)
        x = x.reshape(len(x), -1, self.dim)
        unit_normal = nn.initializers.normal(1.0)
        x = prepend_token(self.param("cls_token", unit_normal, (1, 1, self.dim)), x)
        positions = self.param("pos_embedding", unit_normal, (1, *x.shape[1:]))
        x = x + positions.astype(x.dtype)
        return Dropout(self.emb_dropout)(x, train)


class CrossBranch(nn.Module):
    """cls + out(attention(norm(in(cls)), patches of the other branch)), in the other's width.

    cls (b, 1, c), patches (b, n, d) -> (b, 1, c). Where c = d there is no way in and out.
    """

    attention: nn.Module
    dtype: Any = None

    @nn.compact
    def __call__(self, cls: jax.Array, patches: jax.Array, train: bool = False) -> jax.Array:
        c, d = cls.shape[-1], patches.shape[-1]
        x = cls if c == d else Dense(d, dtype=self.dtype, name="project_in")(cls)
        x = self.attention(LayerNorm(dtype=self.dtype, name="norm")(x), patches, train=train)
        return cls + (x if c == d else Dense(c, dtype=self.dtype, name="project_out")(x))


class CrossViT(AttentionBackbone, kw_only=True):
    """CrossViT (arXiv:2103.14899): patches of two sizes, branches joined by their class tokens.

    `tokens`, `encode` and `pooled` give pairs or, pooled, both class tokens side
    by side; logits of the two are added. Fields beyond these are those of `AttentionBackbone`.

    Attributes:
        image_size: an int or (height, width).
        sm_dim, sm_patch_size: width and patches of the small-patch branch; lg alike.
        sm_enc_depth, sm_enc_heads, sm_enc_mlp_dim, sm_enc_dim_head: of its encoders.
        cross_attn_depth, cross_attn_heads, cross_attn_dim_head: of the class tokens' attention.
        depth: how often encoders and class tokens take turns.
        dropout: on the attention's weights and output, and in the MLPs.
        emb_dropout: after positions are added.
    """

    image_size: int | tuple[int, int]
    sm_dim: int
    lg_dim: int
    sm_patch_size: int | tuple[int, int] = 12
    sm_enc_depth: int = 1
    sm_enc_heads: int = 8
    sm_enc_mlp_dim: int = 2048
    sm_enc_dim_head: int = 64
    lg_patch_size: int | tuple[int, int] = 16
    lg_enc_depth: int = 4
    lg_enc_heads: int = 8
    lg_enc_mlp_dim: int = 2048
    lg_enc_dim_head: int = 64
    cross_attn_depth: int = 2
    cross_attn_heads: int = 8
    cross_attn_dim_head: int = 64
    depth: int = 3
    dropout: float = 0.1
    emb_dropout: float = 0.1

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        widths = ("dim", "enc_depth", "enc_heads", "enc_mlp_dim", "enc_dim_head")
        require_positive_ints(
            self,
            *(f"{branch}_{width}" for branch in BRANCHES for width in widths),
            "cross_attn_depth",
            "cross_attn_heads",
            "cross_attn_dim_head",
            "depth",
        )
        require_rates(self, "dropout", "emb_dropout")
        self.grids  # noqa: B018  (raises if an embedding cannot cut this image)

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return self.sm_dim + self.lg_dim

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each branch's map."""
        size = pair("image_size", self.image_size)
        return tuple(
            build(NormPatchEmbed, self, **self._patches(branch)).grid(size) for branch in BRANCHES
        )

    def map_of(self, path: tuple[str, ...]) -> int | None:
        """Which of `grids` the parameter at `path` belongs to, if it has an entry a position."""
        kind, *_, branch = path[1].split("_")
        return 1 - int(branch) if kind == "crosses" else int(branch)  # those ask the other branch

    def _patches(self, branch: str) -> dict[str, Any]:
        field = f"{branch}_patch_size"
        patch_size = pair(field, getattr(self, field))
        return {"dim": getattr(self, f"{branch}_dim"), "patch_size": patch_size}

    def _encoder(self, branch: str) -> nn.Module:
        names = ("depth", "heads", "mlp_dim", "dim_head")
        fields = {name: getattr(self, f"{branch}_enc_{name}") for name in names}
        dim = getattr(self, f"{branch}_dim")
        encoder: ModuleDef = self.rematted(Transformer)
        return build(encoder, self, dim=dim, project_out=True, **fields)

    def _cross(self) -> nn.Module:
        attention = ClassAttention(
            self.core(attention_dropout=self.dropout),
            self.cross_attn_heads,
            self.cross_attn_dim_head,
            self.dropout,
            self.dtype,
        )
        return CrossBranch(attention, self.dtype)

    def setup(self):
        """Builds the parts."""
        self.embeddings = [build(PatchTokens, self, **self._patches(branch)) for branch in BRANCHES]
        rounds, crossings = range(self.depth), range(self.cross_attn_depth)
        self.encoders = [[self._encoder(branch) for branch in BRANCHES] for _ in rounds]
        self.crosses = [[[self._cross() for _ in BRANCHES] for _ in crossings] for _ in rounds]
        if self.num_classes:
            self.heads = [Head(self.num_classes, dtype=self.dtype) for _ in BRANCHES]

    def tokens(self, img: jax.Array, *, train: bool = False) -> Pair:
        """`(b, H, W, C) -> (b, 1 + n, sm_dim), (b, 1 + m, lg_dim)`."""
        check_image(img.shape, self.channels, pair("image_size", self.image_size))
        sm, lg = (embedding(img, train) for embedding in self.embeddings)
        return sm, lg

    def encode(self, tokens: Pair, *, train: bool = False) -> Pair:
        """Both branches' tokens through all encoders and exchanges; shapes kept."""
        sm, lg = tokens
        for (sm_encoder, lg_encoder), crosses in zip(self.encoders, self.crosses, strict=True):
            sm, lg = sm_encoder(sm, train), lg_encoder(lg, train)
            sm_cls, lg_cls = sm[:, :1], lg[:, :1]
            for sm_cross, lg_cross in crosses:
                sm_cls = sm_cross(sm_cls, lg[:, 1:], train)
                lg_cls = lg_cross(lg_cls, sm[:, 1:], train)
            sm = jnp.concatenate([sm_cls, sm[:, 1:]], axis=1)
            lg = jnp.concatenate([lg_cls, lg[:, 1:]], axis=1)
        return sm, lg

    def pooled(self, tokens: Pair) -> jax.Array:
        """Both class tokens, `(b, sm_dim + lg_dim)`."""
        return jnp.concatenate([x[:, 0] for x in tokens], axis=-1)

    def head(self, features: jax.Array) -> jax.Array:
        """`(b, sm_dim + lg_dim) -> (b, num_classes)` float32: the sum of both branches' logits."""
        sm_head, lg_head = self.heads
        return sm_head(features[:, : self.sm_dim]) + lg_head(features[:, self.sm_dim :])
