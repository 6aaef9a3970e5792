"""FNet2D: Fourier mixing of whole maps: rows, columns and channels at once (arXiv:2107.02239).

(b, H, W, C) -> (b, num_classes), for any image size; no tokens, no positions, no norm before the
transform: the BatchNorm behind it absorbs its scale.
"""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers import BatchNorm, Conv, Dense, Mlp
from vix_flax.mixers import Fourier
from vix_flax.models.backbone import MapBackbone
from vix_flax.models.image import check_image


class FourierBlock(nn.Module):
    """x + mlp(batch_norm(Fourier(x))) on a map: `(b, h, w, c) -> (b, h, w, c)`."""

    mlp_dim: int
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        y = Fourier(name="mixer")(x)
        y = BatchNorm(dtype=self.dtype, name="norm")(y, use_running_average=not train)
        return x + Mlp(self.mlp_dim, dropout=self.dropout, dtype=self.dtype, name="mlp")(y, train)


class FNet2D(MapBackbone, kw_only=True):
    """FNet on maps instead of tokens, arXiv:2105.03824 and arXiv:2107.02239.

    Training needs `mutable=["batch_stats"]`; evaluation uses the running statistics. Fields beyond
    these are those of `Backbone`.

    Attributes:
        dim, depth, mlp_dim: width, number of blocks, hidden units.
        dropout: in the MLPs.
    """

    dim: int
    depth: int
    mlp_dim: int
    dropout: float = 0.0

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        require_positive_ints(self, "dim", "depth", "mlp_dim")
        if self.dim < 2:
            raise ValueError(
                f"dim={self.dim} must be at least 2: the first convolution has dim // 2"
            )
        require_rates(self, "dropout")

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        return self.dim

    def setup(self):
        """Names the parts."""
        self.conv1 = Conv(self.dim // 2, 3, padding=1, dtype=self.dtype)
        self.conv2 = Conv(self.dim, 3, padding=1, dtype=self.dtype)
        block = self.rematted(FourierBlock)
        self.blocks = [block(self.mlp_dim, self.dropout, self.dtype) for _ in range(self.depth)]
        if self.num_classes:
            self.classifier = Dense(self.num_classes, dtype=self.dtype)

    def tokens(self, img: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, H, W, C) -> (b, H, W, dim)` by two 3 × 3 convolutions."""
        check_image(img.shape, self.channels)
        return self.conv2(self.conv1(img))

    def encode(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """`(b, h, w, dim) -> (b, h, w, dim)`: through all blocks."""
        for block in self.blocks:
            tokens = block(tokens, train)
        return tokens
