"""Parts with no opinion: dense layers, norms, embeddings, positions. They know nothing else."""

from vix_flax.layers.activation import ACTIVATIONS, activate, gelu
from vix_flax.layers.build import ModuleDef, build, field_names
from vix_flax.layers.conv_stem import ConvStem, ReluConvStem, StridedConvStem
from vix_flax.layers.conv_tokenizer import ConvTokenizer
from vix_flax.layers.dense import Conv, Dense
from vix_flax.layers.drop_path import DropPath
from vix_flax.layers.mlp import Mlp
from vix_flax.layers.norm import LayerNorm
from vix_flax.layers.patch_embed import GeluPatchEmbed, NormPatchEmbed, PatchEmbed
from vix_flax.layers.pool import SequencePool
from vix_flax.layers.rotary import check_rotary_width, rotary_angles, rotate
from vix_flax.layers.sine import sine_positions

EMBEDS = {
    "patch": PatchEmbed,
    "norm_patch": NormPatchEmbed,
    "gelu_patch": GeluPatchEmbed,
    "conv_stem": ConvStem,
    "strided_conv_stem": StridedConvStem,
    "relu_conv_stem": ReluConvStem,
}

__all__ = [
    "ACTIVATIONS",
    "Conv",
    "ConvStem",
    "ConvTokenizer",
    "Dense",
    "DropPath",
    "EMBEDS",
    "GeluPatchEmbed",
    "LayerNorm",
    "Mlp",
    "ModuleDef",
    "NormPatchEmbed",
    "PatchEmbed",
    "ReluConvStem",
    "SequencePool",
    "StridedConvStem",
    "activate",
    "build",
    "check_rotary_width",
    "field_names",
    "gelu",
    "rotary_angles",
    "rotate",
    "sine_positions",
]
