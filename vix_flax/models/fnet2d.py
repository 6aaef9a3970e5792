"""FNet2D: Fourier mixing of whole maps: rows, columns and channels at once (arXiv:2107.02239).

(b, H, W, C) -> (b, num_classes), for any image size; no tokens, no positions, no norm before the
transform: the BatchNorm behind it absorbs its scale.
"""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.checks import require_num_classes, require_positive_ints, require_rates
from vix_flax.layers import Conv, Dense, Mlp
from vix_flax.mixers import Fourier
from vix_flax.models.backbone import MapBackbone
from vix_flax.models.image import check_dtype, check_image


class FourierBlock(nn.Module):
    """x + mlp(batch_norm(Fourier(x))) on a map: `(b, h, w, c) -> (b, h, w, c)`."""

    mlp_dim: int
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        y = Fourier(name="mixer")(x)
        norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=self.dtype, name="norm")
        y = norm(y, use_running_average=not train)
        return x + Mlp(self.mlp_dim, dropout=self.dropout, dtype=self.dtype, name="mlp")(y, train)


class FNet2D(MapBackbone, kw_only=True):
    """FNet on maps instead of tokens, arXiv:2105.03824 and arXiv:2107.02239.

    Training needs `mutable=["batch_stats"]`; evaluation uses the running statistics.

    Attributes:
        num_classes: 0 gives the pooled features `(b, dim)`.
        dim, depth, mlp_dim: width, number of blocks, hidden units.
        channels: of the image.
        dropout: in the MLPs.
        dtype, remat: as in `ViX`.
    """

    num_classes: int
    dim: int
    depth: int
    mlp_dim: int
    channels: int = 3
    dropout: float = 0.0
    dtype: Any = None
    remat: bool = False

    def __post_init__(self):
        require_positive_ints(self, "dim", "depth", "mlp_dim", "channels")
        if self.dim < 2:
            raise ValueError(
                f"dim={self.dim} must be at least 2: the first convolution has dim // 2"
            )
        require_num_classes(self)
        require_rates(self, "dropout")
        check_dtype(self.dtype)
        super().__post_init__()

    def setup(self):
        """Names the parts."""
        self.conv1 = Conv(self.dim // 2, 3, padding=1, dtype=self.dtype)
        self.conv2 = Conv(self.dim, 3, padding=1, dtype=self.dtype)
        block = nn.remat(FourierBlock, static_argnums=(2,)) if self.remat else FourierBlock
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
