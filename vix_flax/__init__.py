"""vix_flax: every efficient attention × every vision backbone, in JAX and Flax linen.

>>> import jax, vix_flax as vix
>>> model = vix.create_model("vin", image_size=8, num_landmarks=16)
>>> img = jax.numpy.zeros((1, 8, 8, 3))
>>> variables = model.init(jax.random.key(0), img)
>>> model.apply(variables, img).shape
(1, 10)
"""

# Models by the papers' names, and by preset.
from vix_flax import attention, convert, mixers, models, wrappers

# Attention cores, for any backbone and for your own.
from vix_flax.attention import (
    Chunked,
    Linear,
    Linformer,
    Nystrom,
    Performer,
    ReAttention,
    Softmax,
    TalkingHeads,
    redraw_features,
)

# Looking at a model, and into it.
from vix_flax.attention_maps import attention_maps, attention_rollout, over_image
from vix_flax.features import features, fine_tune_variables
from vix_flax.inspect import count_params, summarize
from vix_flax.models import (
    CCX,
    CaiT,
    CrossFormer,
    CrossViT,
    CvT,
    CvX,
    EfficientViT,
    Encoder,
    FNet2D,
    LeViT,
    LeViX,
    Nystromformer,
    PiT,
    T2TViT,
    Transformer,
    ViX,
)
from vix_flax.presets import create_model, list_models

# Another image size.
from vix_flax.resize import resize_positions

# What uses a model by its verbs.
from vix_flax.wrappers import (
    BYOL,
    MPP,
    DistillableEfficientViT,
    DistillableT2TViT,
    DistillableViT,
    DistillWrapper,
    Recorder,
    swap_attention,
    update_target,
)
from vix_flax.zoo import (
    CCN,
    CCP,
    CCT,
    CvN,
    CvP,
    DeepViT,
    DualNormViT,
    FNet,
    HybridFNet,
    HybridMLPMixer,
    HybridViL,
    HybridViLRoPE,
    HybridViN,
    HybridViNRoPE,
    HybridViP,
    HybridViPRoPE,
    HybridViT,
    HybridViTRoPE,
    ImageNetHybridViN,
    LeViN,
    LeViP,
    MLPMixer,
    NanoViT,
    NanoViTLinear,
    NanoViTLinearConv,
    ViL,
    ViLRoPE,
    ViMEA,
    ViN,
    ViNRoPE,
    ViP,
    ViPRoPE,
    ViT,
    ViTRoPE,
)

__version__ = "0.1.0"

__all__ = [
    "BYOL", "CCN", "CCP", "CCT", "CCX", "CaiT", "Chunked", "CrossFormer", "CrossViT", "CvN",
    "CvP", "CvT", "CvX", "DeepViT", "DistillWrapper", "DistillableEfficientViT",
    "DistillableT2TViT", "DistillableViT", "DualNormViT", "EfficientViT", "Encoder", "FNet",
    "FNet2D", "HybridFNet", "HybridMLPMixer", "HybridViL", "HybridViLRoPE", "HybridViN",
    "HybridViNRoPE", "HybridViP", "HybridViPRoPE", "HybridViT", "HybridViTRoPE",
    "ImageNetHybridViN", "LeViN", "LeViP", "LeViT", "LeViX", "Linear", "Linformer", "MLPMixer",
    "MPP", "NanoViT", "NanoViTLinear", "NanoViTLinearConv", "Nystrom", "Nystromformer",
    "Performer", "PiT", "ReAttention", "Recorder", "Softmax", "T2TViT", "TalkingHeads",
    "Transformer", "ViL", "ViLRoPE", "ViMEA", "ViN", "ViNRoPE", "ViP", "ViPRoPE", "ViT",
    "ViTRoPE", "ViX", "attention", "attention_maps", "attention_rollout", "convert",
    "count_params", "create_model", "features", "fine_tune_variables", "list_models", "mixers",
    "models", "over_image", "redraw_features", "resize_positions", "summarize", "swap_attention",
    "update_target", "wrappers",
]  # fmt: skip
