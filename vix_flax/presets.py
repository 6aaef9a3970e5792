"""Names to build models by: a preset is a class and the fields of its published configuration.

Configurations of the ViX family are those of the published scripts (CIFAR-10; Tiny ImageNet for
the mixers and the convolutional families), except that the embedding dropout of 0.5 in two of them,
a slip, is 0 here. The models of vit-pytorch have its README's configuration, and with `_cifar` one
for images of 32 × 32 pixels.
"""

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

from flax import linen as nn

from vix_flax import zoo
from vix_flax.attention import ATTENTIONS
from vix_flax.layers import EMBEDS, field_names
from vix_flax.mixers import MIXERS
from vix_flax.models import (
    CaiT,
    CrossFormer,
    CrossViT,
    CvT,
    EfficientViT,
    Encoder,
    FNet2D,
    LeViT,
    Nystromformer,
    PiT,
    T2TViT,
    TokensToToken,
)
from vix_flax.suggest import did_you_mean

PARTS = {
    "attention": ATTENTIONS,
    "embed": {**EMBEDS, "tokens_to_token": TokensToToken},
    "mixer": MIXERS,
}

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
README_VIT = dict(
    image_size=256, patch_size=32, num_classes=1000, dim=1024, depth=6, heads=16, mlp_dim=2048,
    dropout=0.1, emb_dropout=0.1,
)  # fmt: skip
CIFAR_VIT = dict(
    image_size=32, patch_size=4, num_classes=10, dim=128, depth=6, heads=4, dim_head=32, mlp_dim=256
)
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
    "dual_norm_vit": (zoo.DualNormViT, README_VIT),
    "dual_norm_vit_cifar": (zoo.DualNormViT, CIFAR_VIT),
    "deepvit": (zoo.DeepViT, README_VIT),
    "deepvit_cifar": (zoo.DeepViT, CIFAR_VIT),
    "cait": (CaiT, {**README_VIT, "depth": 12, "cls_depth": 2, "layer_dropout": 0.05}),
    "cait_cifar": (CaiT, {**CIFAR_VIT, "cls_depth": 2, "layer_dropout": 0.05}),
    "t2t_vit": (
        T2TViT,
        dict(
            image_size=224, num_classes=1000, dim=512, depth=5, heads=8, mlp_dim=512,
            t2t_layers=((7, 4), (3, 2), (3, 2)),
        ),
    ),
    "t2t_vit_cifar": (
        T2TViT,
        {**CIFAR_VIT, "patch_size": 1, "t2t_layers": ((3, 2), (3, 2))},
    ),
    "cross_vit": (
        CrossViT,
        dict(
            image_size=256, num_classes=1000, depth=4, dropout=0.1, emb_dropout=0.1,
            sm_dim=192, sm_patch_size=16, sm_enc_depth=2, sm_enc_heads=8, sm_enc_mlp_dim=2048,
            lg_dim=384, lg_patch_size=64, lg_enc_depth=3, lg_enc_heads=8, lg_enc_mlp_dim=2048,
            cross_attn_depth=2, cross_attn_heads=8,
        ),
    ),
    "cross_vit_cifar": (
        CrossViT,
        dict(
            image_size=32, num_classes=10, depth=2,
            sm_dim=64, sm_patch_size=4, sm_enc_depth=1, sm_enc_heads=4, sm_enc_mlp_dim=128,
            sm_enc_dim_head=16, lg_dim=128, lg_patch_size=8, lg_enc_depth=2, lg_enc_heads=4,
            lg_enc_mlp_dim=256, lg_enc_dim_head=32,
            cross_attn_depth=2, cross_attn_heads=4, cross_attn_dim_head=32,
        ),
    ),
    "pit": (
        PiT,
        dict(
            image_size=224, patch_size=14, num_classes=1000, dim=256, depth=(3, 3, 3), heads=16,
            mlp_dim=2048, dropout=0.1, emb_dropout=0.1,
        ),
    ),
    "pit_cifar": (
        PiT,
        dict(
            image_size=32, patch_size=4, num_classes=10, dim=64, depth=(2, 2, 2), heads=(2, 4, 8),
            dim_head=32, mlp_dim=256,
        ),
    ),
    "levit": (
        LeViT,
        dict(
            image_size=224, num_classes=1000, stages=3, dim=(256, 384, 512), depth=4,
            heads=(4, 6, 8), mlp_mult=2, dropout=0.1,
        ),
    ),
    "levit_cifar": (
        LeViT,
        dict(
            image_size=32, num_classes=10, stages=2, dim=(128, 192), depth=(2, 2), heads=(4, 6),
            mlp_mult=2, dim_key=16, dim_value=32,
        ),
    ),
    "cvt": (CvT, dict(num_classes=1000, s3_heads=4)),
    "cvt_cifar": (
        CvT,
        dict(
            num_classes=10,
            s1_emb_dim=32, s1_emb_kernel=3, s1_emb_stride=1, s1_heads=1, s1_depth=1, s1_mlp_mult=2,
            s2_emb_dim=64, s2_heads=2, s2_depth=1, s2_mlp_mult=2,
            s3_emb_dim=128, s3_heads=2, s3_depth=2, s3_mlp_mult=2,
        ),
    ),
    "crossformer": (CrossFormer, dict(num_classes=1000)),
    "crossformer_cifar": (
        CrossFormer,
        dict(
            num_classes=10, dim=(32, 64, 128, 128), depth=(1, 1, 2, 1),
            global_window_size=(4, 4, 2, 1), local_window_size=(4, 4, 4, 2),
            cross_embed_kernel_sizes=((2, 4, 8), (2, 4), (2, 4), (2, 4)),
            cross_embed_strides=(2, 2, 2, 2),
        ),
    ),
    "efficient_vit": (
        EfficientViT,
        dict(
            image_size=2048, patch_size=32, num_classes=1000, dim=512,
            transformer=Nystromformer(dim=512, depth=12, heads=8, num_landmarks=256),
        ),
    ),
    "efficient_vit_cifar": (
        EfficientViT,
        dict(
            image_size=32, patch_size=4, num_classes=10, dim=128,
            transformer=Nystromformer(dim=128, depth=6, heads=4, dim_head=32, num_landmarks=16),
        ),
    ),
    "efficient_vit_x": (
        EfficientViT,
        dict(
            image_size=224, patch_size=16, num_classes=1000, dim=512,
            transformer=Encoder(dim=512, depth=12, heads=8, ff_glu=True, residual_attn=True),
        ),
    ),
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


def attention_grid(names: Iterable[str]) -> dict[str, dict[str, tuple[bool, str]]]:
    """For each preset and each attention whether the two go together, and what to know of it.

    `(True, note)` where they do (the note is empty, or says what is left out); `(False, reason)`
    where the model cannot be built.
    """

    def cell(name, attention):
        fixed = getattr(create_model(name), "fixed_attention", "it does not attend")
        if fixed:
            return False, fixed
        try:
            return True, " ".join(create_model(name, attention=attention).notes)
        except ValueError as error:
            return False, str(error)

    return {name: {a: cell(name, a) for a in ATTENTIONS} for name in names}
