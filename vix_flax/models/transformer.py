"""Encoders without embedding or head: parts of larger models, or a model's `transformer=`.

`encoder(x, train=False)`: (b, n, dim) -> (b, n, dim)
"""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from flax.core import FrozenDict

from vix_flax.attention import Nystrom, Softmax
from vix_flax.checks import require_positive_ints, require_rates
from vix_flax.layers import LayerNorm, ModuleDef, build, build_attention
from vix_flax.mixers import SelfAttention, needs_projection
from vix_flax.models.block import Block


class Transformer(nn.Module, kw_only=True):
    """`depth` pre-norm blocks with any attention, and a norm (arXiv:2010.11929).

    Attributes:
        dim, depth, heads, dim_head, mlp_dim: widths, and the number of blocks.
        dropout: on the attention's weights and output, and in the MLPs.
        attention, attention_options, reference: the core, as in `AttentionBackbone`.
        final_norm: the norm behind the last block.
        project_out: the attention's output projection; None leaves it out where one head is as
            wide as the tokens.
    """

    dim: int
    depth: int
    heads: int
    mlp_dim: int
    dim_head: int = 64
    dropout: float = 0.0
    attention: ModuleDef = Softmax
    attention_options: Mapping[str, Any] = FrozenDict()
    reference: bool = False
    final_norm: bool = True
    project_out: bool | None = None
    dtype: Any = None

    def __post_init__(self):
        if not isinstance(self.attention_options, Mapping):
            raise ValueError(f"attention_options={self.attention_options!r} must be a mapping")
        self.attention_options = FrozenDict(self.attention_options)
        require_positive_ints(self, "dim", "depth", "heads", "mlp_dim", "dim_head")
        require_rates(self, "dropout")
        build_attention(self)  # raises if there is no such option
        super().__post_init__()

    def setup(self):
        """Builds the blocks."""
        projects = self.project_out
        if projects is None:
            projects = needs_projection(self.heads, self.dim_head, self.dim)
        self.blocks = [
            build(Block, self, mixer=self._mixer(projects), mlp_dim=self.mlp_dim)
            for _ in range(self.depth)
        ]
        if self.final_norm:
            self.norm = LayerNorm(dtype=self.dtype)

    def _mixer(self, projects):
        core = build_attention(self, attention_dropout=self.dropout)
        given = dict(project_out=projects, out_dropout=self.dropout)
        return build(SelfAttention, self, core=core, **given)

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`(b, n, dim) -> (b, n, dim)`."""
        for block in self.blocks:
            x = block(x, train)
        return self.norm(x) if self.final_norm else x


class Nystromformer(nn.Module, kw_only=True):
    """The Nyströmformer of nystrom-attention (arXiv:2102.03902), keywords alike; no last norm.

    Attributes:
        dim, depth, heads, dim_head: widths, and the number of blocks; MLPs are four times as wide.
        num_landmarks, pinv_iterations: of the attention.
        attn_values_residual, attn_values_residual_conv_kernel: its convolution of the values.
        attn_dropout, ff_dropout: of the attention's output, and in the MLPs.
        reference: zero-padding and batch-wide scaling, as published; see `Nystrom`.
    """

    dim: int
    depth: int
    dim_head: int = 64
    heads: int = 8
    num_landmarks: int = 256
    pinv_iterations: int = 6
    attn_values_residual: bool = True
    attn_values_residual_conv_kernel: int = 33
    attn_dropout: float = 0.0
    ff_dropout: float = 0.0
    reference: bool = False
    dtype: Any = None

    def __post_init__(self):
        require_positive_ints(self, "dim", "depth", "heads", "dim_head")
        require_rates(self, "attn_dropout", "ff_dropout")
        self._core()
        super().__post_init__()

    def _core(self):
        taps = self.attn_values_residual_conv_kernel if self.attn_values_residual else 0
        return build(Nystrom, self, residual_conv_kernel=taps)

    def setup(self):
        """Builds the blocks."""
        self.blocks = [
            Block(
                mixer=build(SelfAttention, self, core=self._core(), out_dropout=self.attn_dropout),
                mlp_dim=4 * self.dim,
                dropout=self.ff_dropout,
                drops_output=False,
                dtype=self.dtype,
            )
            for _ in range(self.depth)
        ]

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`(b, n, dim) -> (b, n, dim)`."""
        for block in self.blocks:
            x = block(x, train)
        return x


def check_encoder(transformer: Any, dim: int) -> None:
    """Raises ValueError unless `transformer` is a module instance of width `dim`, if it has one."""
    if not isinstance(transformer, nn.Module):
        raise ValueError(
            f"transformer={transformer!r} must be a module that maps (b, n, {dim}) to the same "
            f"shape, e.g. Transformer(dim={dim}, depth=2, heads=4, mlp_dim={4 * dim})"
        )
    width = getattr(transformer, "dim", dim)
    if width != dim:
        raise ValueError(f"transformer has dim={width}, the model dim={dim}: give both the same")


def run_encoder(transformer: nn.Module, x: jax.Array, train: bool, remat: bool) -> jax.Array:
    """Calls any encoder module, with `train=` if it knows that word."""
    knows_train = "train" in inspect.signature(transformer.__call__).parameters

    def run(transformer, x):
        return transformer(x, train=train) if knows_train else transformer(x)

    return (nn.remat(run) if remat else run)(transformer, x)
