"""Parts with no opinion: dense layers, norms, embeddings, positions. They know nothing else."""

from vix_flax.layers.activation import ACTIVATIONS, activate, gelu
from vix_flax.layers.build import ModuleDef, build, build_attention, field_names
from vix_flax.layers.conv import Conv
from vix_flax.layers.conv_stem import ConvStem, LeViTStem, ReluConvStem, StridedConvStem
from vix_flax.layers.conv_tokenizer import ConvTokenizer
from vix_flax.layers.cross_scale_embed import CrossScaleEmbed
from vix_flax.layers.dense import Dense
from vix_flax.layers.depthwise import DepthwiseConv
from vix_flax.layers.drop_path import DropPath
from vix_flax.layers.dropout import Dropout
from vix_flax.layers.layer_scale import LayerScale
from vix_flax.layers.mlp import GluMlp, Mlp
from vix_flax.layers.norm import BatchNorm, LayerNorm, SigmaNorm
from vix_flax.layers.patch_embed import GeluPatchEmbed, NormPatchEmbed, PatchEmbed
from vix_flax.layers.pool import SequencePool
from vix_flax.layers.position_bias import DistanceBias, DynamicPositionBias
from vix_flax.layers.rotary import check_rotary_width, rotary_angles, rotate
from vix_flax.layers.sine import sine_positions
from vix_flax.layers.tokens import prepend_token
from vix_flax.layers.unfold import UnfoldEmbed, unfold, unfolded_side

EMBEDS = {
    "patch": PatchEmbed,
    "norm_patch": NormPatchEmbed,
    "gelu_patch": GeluPatchEmbed,
    "conv_stem": ConvStem,
    "strided_conv_stem": StridedConvStem,
    "relu_conv_stem": ReluConvStem,
    "levit_stem": LeViTStem,
    "unfold": UnfoldEmbed,
}

__all__ = [
    "ACTIVATIONS",
    "BatchNorm",
    "Conv",
    "ConvStem",
    "ConvTokenizer",
    "CrossScaleEmbed",
    "Dense",
    "DepthwiseConv",
    "DistanceBias",
    "DropPath",
    "Dropout",
    "DynamicPositionBias",
    "EMBEDS",
    "GeluPatchEmbed",
    "GluMlp",
    "LayerNorm",
    "LayerScale",
    "LeViTStem",
    "Mlp",
    "ModuleDef",
    "NormPatchEmbed",
    "PatchEmbed",
    "ReluConvStem",
    "SequencePool",
    "SigmaNorm",
    "StridedConvStem",
    "UnfoldEmbed",
    "activate",
    "build",
    "build_attention",
    "check_rotary_width",
    "field_names",
    "gelu",
    "prepend_token",
    "rotary_angles",
    "rotate",
    "sine_positions",
    "unfold",
    "unfolded_side",
]
