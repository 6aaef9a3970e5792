"""Every name of the papers: a variant is a ViX with other defaults.

Keyword arguments and defaults are those of the published code (arXiv:2107.02239 where no other
paper is named). ViN, ViP, ViL and FNet have the pip package's patch embedding, between
LayerNorms; `embed=PatchEmbed` gives the plain one of the original scripts.
"""

from typing import ClassVar

from vix_flax.attention import (
    Chunked,
    Linear,
    Linformer,
    Nystrom,
    Performer,
    ReAttention,
    Softmax,
)
from vix_flax.layers import (
    ConvStem,
    GeluPatchEmbed,
    ModuleDef,
    NormPatchEmbed,
    PatchEmbed,
    ReluConvStem,
    StridedConvStem,
)
from vix_flax.mixers import Fourier, TokenMlp, needs_projection
from vix_flax.models import CCX, CvX, LeViX, RenormBlock, ViX


class ViT(ViX, kw_only=True):
    """Vision Transformer (arXiv:2010.11929): exact softmax attention between patches.

    With a single head as wide as the model the output projection is left out, as published.
    """

    attention: ModuleDef = Softmax
    attention_drops: ClassVar[str] = "output"

    @property
    def project_out(self) -> bool:
        """Whether the attention has an output projection."""
        return needs_projection(self.heads, self.dim_head, self.dim)


class DualNormViT(ViT, kw_only=True):
    """ViT as vit-pytorch has come to build it, patches between LayerNorms (arXiv:2302.01327).

    The last norm is before the pooling, the head a dense layer; with `pool="mean"` there is no
    class token; dropout is on the attention's weights, too.
    """

    embed: ModuleDef = NormPatchEmbed
    norm_before_pool: ClassVar[bool] = True
    attention_drops: ClassVar[str] = "both"

    @property
    def class_token(self) -> bool:
        """Whether there is a class token."""
        return self.pool == "cls"


class DeepViT(ViX, kw_only=True):
    """ViT whose heads exchange their attention weights (arXiv:2103.11886).

    With another `attention` than `ReAttention` they do not.
    """

    embed: ModuleDef = NormPatchEmbed
    attention: ModuleDef = ReAttention
    attention_drops: ClassVar[str] = "both"


class ViL(ViX, kw_only=True):
    """Vision Linformer (arXiv:2006.04768): keys and values projected along tokens to `k` rows."""

    embed: ModuleDef = NormPatchEmbed
    attention: ModuleDef = Linformer
    k: int = 64
    one_kv_head: bool = True
    share_kv: bool = True
    attention_drops: ClassVar[str] = "weights"


class ViP(ViX, kw_only=True):
    """Vision Performer (arXiv:2009.14794): softmax attention by random features."""

    embed: ModuleDef = NormPatchEmbed
    attention: ModuleDef = Performer
    qkv_bias: bool = True


class ViN(ViX, kw_only=True):
    """Vision Nyströmformer (arXiv:2102.03902): attention by `num_landmarks` averaged tokens."""

    embed: ModuleDef = NormPatchEmbed
    attention: ModuleDef = Nystrom
    num_landmarks: int = 64


class FNet(ViX, kw_only=True):
    """FNet on patches (arXiv:2105.03824): tokens and features mixed by a Fourier transform."""

    embed: ModuleDef = NormPatchEmbed
    mixer: ModuleDef = Fourier
    heads: int | None = None  # accepted as published; there are no heads
    dim_head: int | None = None


class ViMEA(ViX, kw_only=True):
    """ViT with memory-efficient exact attention (arXiv:2112.05682), in chunks of the tokens."""

    attention: ModuleDef = Chunked
    out_bias: bool = False
    query_chunk: int = 256
    key_chunk: int = 512
    attention_drops: ClassVar[str] = "weights"


class MLPMixer(ViX, kw_only=True):
    """MLP-Mixer (arXiv:2105.01601): MLPs along the tokens and along the features in turn."""

    mixer: ModuleDef = TokenMlp
    position: str = "none"
    pool: str = "mean"
    expansion_factor: int = 4  # of both MLPs
    mlp_dim: int | None = None  # None: dim * expansion_factor
    heads: int | None = None
    dim_head: int | None = None
    pools: ClassVar[tuple[str, ...]] = ("mean",)
    class_token: ClassVar[bool] = False
    norm_before_pool: ClassVar[bool] = True

    @property
    def mlp_width(self) -> int:
        """Hidden units of the MLPs along the features."""
        return self.mlp_dim or self.dim * self.expansion_factor


class HybridViT(ViT, kw_only=True):
    """ViT on a convolutional stem (arXiv:2107.02239)."""

    patch_size: int | tuple[int, int] = 1
    embed: ModuleDef = ConvStem


class HybridViL(ViL, kw_only=True):
    """ViL on a convolutional stem (arXiv:2107.02239), with a key head for every query head."""

    patch_size: int | tuple[int, int] = 1
    embed: ModuleDef = ConvStem
    one_kv_head: bool = False


class HybridViP(ViP, kw_only=True):
    """ViP on a convolutional stem (arXiv:2107.02239)."""

    patch_size: int | tuple[int, int] = 1
    embed: ModuleDef = ConvStem


class HybridViN(ViN, kw_only=True):
    """ViN on a convolutional stem (arXiv:2107.02239)."""

    patch_size: int | tuple[int, int] = 1
    embed: ModuleDef = ConvStem


class HybridFNet(FNet, kw_only=True):
    """FNet on a convolutional stem (arXiv:2107.02239)."""

    patch_size: int | tuple[int, int] = 1
    embed: ModuleDef = ConvStem


class HybridMLPMixer(MLPMixer, kw_only=True):
    """MLP-Mixer on a convolutional stem that halves the map (arXiv:2107.02239).

    `image_size` is the image's (the published argument is that of the halved map).
    """

    patch_size: int | tuple[int, int] = 1
    embed: ModuleDef = StridedConvStem


class ViTRoPE(ViT, kw_only=True):
    """ViT with rotary positions (arXiv:2104.09864) in raster order."""

    position: str = "rotary"
    unused_positions: ClassVar[bool] = True


class ViLRoPE(ViL, kw_only=True):
    """ViL with rotary positions (arXiv:2104.09864): keys turn, the values they serve as do not."""

    embed: ModuleDef = PatchEmbed
    position: str = "rotary"
    one_kv_head: bool = False
    unused_positions: ClassVar[bool] = True


class ViPRoPE(ViP, kw_only=True):
    """ViP with rotary positions (arXiv:2104.09864), turned before the feature map."""

    embed: ModuleDef = PatchEmbed
    position: str = "rotary"


class ViNRoPE(ViN, kw_only=True):
    """ViN with rotary positions (arXiv:2104.09864)."""

    embed: ModuleDef = PatchEmbed
    position: str = "rotary"


class HybridViTRoPE(HybridViT, kw_only=True):
    """ViT on a convolutional stem with rotary positions (arXiv:2104.09864)."""

    position: str = "rotary"
    unused_positions: ClassVar[bool] = True


class HybridViLRoPE(HybridViL, kw_only=True):
    """ViL on a convolutional stem with rotary positions (arXiv:2104.09864)."""

    position: str = "rotary"
    unused_positions: ClassVar[bool] = True


class HybridViPRoPE(HybridViP, kw_only=True):
    """ViP on a convolutional stem with rotary positions (arXiv:2104.09864)."""

    position: str = "rotary"


class HybridViNRoPE(HybridViN, kw_only=True):
    """ViN on a convolutional stem with rotary positions (arXiv:2104.09864)."""

    position: str = "rotary"


class ImageNetHybridViN(ViN, kw_only=True):
    """The ImageNet-size Hybrid ViN (arXiv:2107.02239): ViN on patches with GELU and LayerNorm."""

    embed: ModuleDef = GeluPatchEmbed
    num_landmarks: int = 32


class NanoViT(ViX, kw_only=True):
    """nanovit's ViT (arXiv:2010.11929): ReLU, scores over √dim, an MLP whose residual is normed."""

    qkv_bias: bool = True
    block: ClassVar[ModuleDef] = RenormBlock
    activation: ClassVar[str] = "relu"

    @property
    def scale(self) -> float:
        """What the attention's scores are multiplied by."""
        return self.dim**-0.5


class NanoViTLinear(NanoViT, kw_only=True):
    """nanovit with linear attention (arXiv:2006.16236) and projections without biases."""

    attention: ModuleDef = Linear
    qkv_bias: bool = False
    out_bias: bool = False


class NanoViTLinearConv(NanoViTLinear, kw_only=True):
    """NanoViTLinear (arXiv:2006.16236) on three convolutions, each with a ReLU."""

    patch_size: int | tuple[int, int] = 1
    embed: ModuleDef = ReluConvStem


class CCT(CCX, kw_only=True):
    """Compact convolutional transformer (arXiv:2104.05704) with softmax attention."""


class CCN(CCX, kw_only=True):
    """CCT with Nyström attention (arXiv:2107.02239)."""

    attention: ModuleDef = Nystrom
    num_landmarks: int = 64
    projection_drops: ClassVar[bool] = False


class CCP(CCX, kw_only=True):
    """CCT with Performer attention (arXiv:2107.02239); the MLPs have no dropout."""

    attention: ModuleDef = Performer
    qkv_bias: ClassVar[bool] = True
    projection_drops: ClassVar[bool] = False
    mlp_drops: ClassVar[bool] = False


class LeViN(LeViX, kw_only=True):
    """LeViT's outline with Nyström attention (arXiv:2107.02239)."""

    attention: ModuleDef = Nystrom
    num_landmarks: int = 64
    doubles_heads: ClassVar[bool] = False


class LeViP(LeViX, kw_only=True):
    """LeViT's outline with Performer attention (arXiv:2107.02239)."""

    attention: ModuleDef = Performer
    qkv_bias: bool = True


class CvN(CvX, kw_only=True):
    """CvT's outline with Nyström attention (arXiv:2107.02239)."""

    attention: ModuleDef = Nystrom
    num_landmarks: int = 64


class CvP(CvX, kw_only=True):
    """CvT's outline with Performer attention (arXiv:2107.02239)."""

    attention: ModuleDef = Performer
    qkv_bias: bool = True
