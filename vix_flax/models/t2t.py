"""T2T-ViT: neighbouring tokens are attended to and folded into one, layer by layer, before ViT.

Yuan et al. 2021, arXiv:2101.11986. (b, H, W, C) -> (b, num_classes)
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from flax import linen as nn
from flax.core import FrozenDict

from vix_flax.attention import Softmax
from vix_flax.layers import Dense, ModuleDef, build, unfold, unfolded_side
from vix_flax.mixers import needs_projection
from vix_flax.models.image import pair
from vix_flax.models.transformer import Transformer, check_encoder, run_encoder
from vix_flax.models.vix import ViX


class TokensToToken(nn.Module):
    """`(b, H, W, C) -> (b, h, w, dim)`: windows become tokens, tokens attend, tokens become a map.

    `t2t_layers` are (kernel, stride) of each unfolding, padded by half a stride. Between two of
    them a transformer of one block and one head, as wide as its tokens; after the last a dense
    layer.
    """

    dim: int
    t2t_layers: tuple[tuple[int, int], ...] = ((7, 4), (3, 2), (3, 2))
    dropout: float = 0.0
    attention: ModuleDef = Softmax
    attention_options: Mapping[str, Any] = FrozenDict()
    reference: bool = False
    dtype: Any = None

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of the map that an image becomes.

        Raises:
            ValueError: nothing is left of it, or `t2t_layers` are no pairs.
        """
        return self.grids(image_size)[-1]

    def grids(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """(rows, columns) of the map after each unfolding."""
        grids, sides = [], image_size
        layers = self.t2t_layers if isinstance(self.t2t_layers, tuple) else (self.t2t_layers,)
        for layer in layers:
            whole = isinstance(layer, tuple) and all(type(n) is int and n > 0 for n in layer)
            if not whole or len(layer) != 2:
                raise ValueError(f"t2t_layers={self.t2t_layers!r} must be (kernel, stride) pairs")
            kernel, stride = layer
            sides = tuple(unfolded_side(side, kernel, stride, stride // 2) for side in sides)
            grids.append(sides)
        if not grids or min(sides) < 1:
            raise ValueError(f"t2t_layers={self.t2t_layers} leave nothing of {image_size}")
        return grids

    @nn.compact
    def __call__(self, img: jax.Array, train: bool = False) -> jax.Array:
        x = img
        for i, (kernel, stride) in enumerate(self.t2t_layers):
            x = unfold(x, kernel, stride, stride // 2)
            if i == len(self.t2t_layers) - 1:
                return Dense(self.dim, dtype=self.dtype, name="dense")(x)
            b, *space, width = x.shape
            given = dict(dim=width, dim_head=width, mlp_dim=width, heads=1, depth=1)
            transformer = build(Transformer, self, **given)
            transformer = transformer.clone(parent=self, name=f"transformer_{i}")
            x = transformer(x.reshape(b, -1, width), train).reshape(b, *space, width)
        raise AssertionError("no t2t_layers")


class T2TViT(ViX, kw_only=True):
    """T2T-ViT (arXiv:2101.11986): ViT whose patches have grown together layer by layer.

    Tokens are normed before pooling.

    Attributes:
        t2t_layers: (kernel, stride) of each unfolding.
        transformer: takes the place of the blocks behind the embedding, without a last norm;
            `depth`, `heads` and `mlp_dim` then say nothing and may be left out.
    """

    patch_size: int | tuple[int, int] = 1  # there are no patches
    depth: int | None = None
    heads: int | None = None
    mlp_dim: int | None = None
    embed: ModuleDef = TokensToToken
    t2t_layers: tuple[tuple[int, int], ...] = ((7, 4), (3, 2), (3, 2))
    transformer: nn.Module | None = None
    norm_before_pool: ClassVar[bool] = True
    attention_drops: ClassVar[str] = "both"

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        if self.patch_size != 1:
            raise ValueError(f"patch_size={self.patch_size}: t2t_layers say how the image is cut")
        super().check()
        if self.transformer is not None:
            for field in ("mixer", "qkv_bias", "out_bias"):
                if getattr(self, field) != T2TViT.__dataclass_fields__[field].default:
                    raise ValueError(f"{field} has no effect beside a transformer: leave it out")
            return check_encoder(self.transformer, self.dim)
        missing = [name for name in ("depth", "heads", "mlp_dim") if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{', '.join(missing)} must be given, or a transformer")

    @property
    def project_out(self) -> bool:
        """Whether the attention has an output projection."""
        return needs_projection(self.heads, self.dim_head, self.dim)

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each map that parameters depend on the size of, in order."""
        return tuple(self._embed().grids(pair("image_size", self.image_size)))

    def map_of(self, path: tuple[str, ...]) -> int | None:
        """Which of `grids` the parameter at `path` belongs to, if it has an entry a position."""
        if path[1] == "embedding":
            return int(path[2].removeprefix("transformer_"))
        return len(self.t2t_layers) - 1

    def embedded(self, img: jax.Array, train: bool) -> jax.Array:
        """`(b, H, W, C) -> (b, h, w, dim)`; the embedding has dropout."""
        return self.embedding(img, train)

    def setup_encoder(self) -> None:
        """Blocks and the norm behind them, unless an encoder is given."""
        if self.transformer is None:
            super().setup_encoder()

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, n, dim) -> (b, n, dim)`: through all blocks, or the given transformer."""
        if self.transformer is None:
            return super().encode(tokens, train=train)
        return run_encoder(self.transformer, tokens, train, self.remat)
