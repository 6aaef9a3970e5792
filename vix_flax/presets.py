"""Names to build models by: a preset is a class and the fields of its published configuration.

Configurations are those of the published scripts (CIFAR-10, for the mixers Tiny ImageNet), except
that the embedding dropout of 0.5 in two of them, a slip, is 0 here.
"""

from fnmatch import fnmatch
from typing import Any

from flax import linen as nn

from vix_flax import zoo
from vix_flax.attention import ATTENTIONS
from vix_flax.layers import EMBEDS, field_names
from vix_flax.mixers import MIXERS
from vix_flax.models import FNet2D
from vix_flax.suggest import did_you_mean

PARTS = {"attention": ATTENTIONS, "embed": EMBEDS, "mixer": MIXERS}

CIFAR = dict(
    image_size=32, patch_size=1, num_classes=10, dim=128, depth=4, heads=4, dim_head=32, mlp_dim=256
)
TINY = dict(image_size=64, num_classes=200, dim=128, depth=4, expansion_factor=1)
COMPACT = dict(
    image_size=64, num_classes=200, embedding_dim=128, num_layers=4, num_heads=4, n_conv_layers=3,
    kernel_size=3, stride=(2, 1, 1), padding=1, pooling_stride=1,
)  # fmt: skip
FLAT = dict(image_size=64, num_classes=200, dim=128, depth=4, heads=4, mlp_mult=2, stages=1)
STAGED = dict(
    num_classes=200,
    s1_emb_dim=128, s1_emb_kernel=3, s1_emb_stride=2, s1_heads=4, s1_depth=1, s1_mlp_mult=2,
    s2_emb_dim=128, s2_emb_kernel=3, s2_emb_stride=1, s2_heads=4, s2_depth=1, s2_mlp_mult=2,
    s3_emb_dim=128, s3_emb_kernel=3, s3_emb_stride=1, s3_heads=4, s3_depth=2, s3_mlp_mult=2,
)  # fmt: skip
NANO = {**CIFAR, "heads": 8, "dim_head": 16, "mlp_dim": 512, "dropout": 0.1}

PRESETS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "vit": (zoo.ViT, {**CIFAR, "dropout": 0.25}),
    "vil": (zoo.ViL, {**CIFAR, "dropout": 0.25}),
    "vip": (zoo.ViP, {**CIFAR, "dropout": 0.25}),
    "vin": (zoo.ViN, {**CIFAR, "dropout": 0.25}),
    "fnet": (zoo.FNet, CIFAR),
    "vimea": (zoo.ViMEA, {**CIFAR, "dropout": 0.25}),
    "mlp_mixer": (zoo.MLPMixer, {**TINY, "patch_size": 2}),
    "fnet2d": (FNet2D, dict(num_classes=10, dim=128, depth=5, mlp_dim=256, dropout=0.5)),
    "hybrid_vit": (zoo.HybridViT, CIFAR),
    "hybrid_vil": (zoo.HybridViL, CIFAR),
    "hybrid_vip": (zoo.HybridViP, CIFAR),
    "hybrid_vin": (zoo.HybridViN, {**CIFAR, "dropout": 0.25}),
    "hybrid_fnet": (zoo.HybridFNet, CIFAR),
    "hybrid_mlp_mixer": (zoo.HybridMLPMixer, TINY),
    "vit_rope": (zoo.ViTRoPE, CIFAR),
    "vil_rope": (zoo.ViLRoPE, CIFAR),
    "vip_rope": (zoo.ViPRoPE, CIFAR),
    "vin_rope": (zoo.ViNRoPE, CIFAR),
    "hybrid_vit_rope": (zoo.HybridViTRoPE, CIFAR),
    "hybrid_vil_rope": (zoo.HybridViLRoPE, CIFAR),
    "hybrid_vip_rope": (zoo.HybridViPRoPE, CIFAR),
    "hybrid_vin_rope": (zoo.HybridViNRoPE, {**CIFAR, "dropout": 0.5}),
    "hybrid_vin_imagenet": (
        zoo.ImageNetHybridViN,
        dict(
            image_size=224, patch_size=16, num_classes=1000, dim=768, depth=12, heads=4,
            mlp_dim=3072, dropout=0.5,
        ),
    ),
    "cct": (zoo.CCT, COMPACT),
    "ccn": (zoo.CCN, COMPACT),
    "ccp": (zoo.CCP, COMPACT),
    "levin": (zoo.LeViN, FLAT),
    "levip": (zoo.LeViP, FLAT),
    "cvn": (zoo.CvN, STAGED),
    "cvp": (zoo.CvP, STAGED),
    "nanovit": (zoo.NanoViT, {**NANO, "patch_size": 2}),
    "nanovit_linear": (zoo.NanoViTLinear, NANO),
    "nanovit_linear_conv": (zoo.NanoViTLinearConv, NANO),
}  # fmt: skip


def list_models(pattern: str = "*") -> list[str]:
    """Names of presets, sorted, that match an `fnmatch` pattern such as `"hybrid_*"`."""
    return sorted(name for name in PRESETS if fnmatch(name, pattern))


def create_model(name: str, **overrides: Any) -> nn.Module:
    """A preset with some fields changed.

    `create_model("vit", attention="nystrom", num_landmarks=16)` is ViT with Nyström attention.

    `attention`, `embed` and `mixer` may be given by name. A keyword that is no field of the model
    but one of its attention's goes into `attention_options`.

    Raises:
        ValueError: unknown model, field or part (near names are suggested), or fields that cannot
            work together.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown model {name!r}" + did_you_mean(name, PRESETS))
    model, preset = PRESETS[name]
    names = field_names(model)
    fields = {**preset, **overrides}
    for part, known in PARTS.items():
        if isinstance(fields.get(part), str):
            if fields[part] not in known:
                raise ValueError(
                    f"unknown {part} {fields[part]!r}" + did_you_mean(fields[part], known)
                )
            fields[part] = known[fields[part]]

    core_names = []
    if "attention" in names:
        core_names = field_names(fields.get("attention", model.attention))
    options = {k: fields.pop(k) for k in list(fields) if k not in names and k in core_names}
    for field in fields:
        if field not in names:
            raise ValueError(
                f"{name} has no field {field!r}" + did_you_mean(field, [*names, *core_names])
            )
    if options:
        fields["attention_options"] = {**fields.get("attention_options", {}), **options}
    try:
        return model(**fields)
    except TypeError as error:  # a value of a type that cannot be compared, or a field left out
        raise ValueError(f"{name} cannot be built: {error}") from error
