"""How to train on each data set: a recipe is a TrainConfig, and flags change it.

`vix train --dataset NAME` starts from the recipe of that name, `--recipe NAME` from any;
`model_fields` apply to the models that have them.
"""

import dataclasses

from vix_flax.layers import PatchEmbed, field_names
from vix_flax.presets import PRESETS
from vix_flax.suggest import did_you_mean
from vix_flax.training import TrainConfig

RECIPES: dict[str, TrainConfig] = {
    "digits": TrainConfig(
        dataset="digits",
        model="vin",
        model_fields=dict(
            dim=64,
            depth=4,
            heads=4,
            dim_head=16,
            mlp_dim=128,
            num_landmarks=8,
            dropout=0.2,
            position="rotary_axial",
        ),
        epochs=35,
        batch_size=32,
        lr=4e-3,
        warmup_epochs=4,
        weight_decay=0.05,
        smoothing=0.1,
        crop_padding=1,
    ),
    # nanovit's recipe (40 epochs at batch 128, smoothed labels, crop and flip), with warm-up.
    "cifar10": TrainConfig(
        dataset="cifar10",
        model="vin",
        epochs=40,
        batch_size=128,
        lr=1e-3,
        min_lr=1e-5,
        warmup_epochs=2,
        weight_decay=1e-4,
        smoothing=0.1,
        crop_padding=4,
        flip=True,
    ),
}
RECIPES["cifar100"] = dataclasses.replace(RECIPES["cifar10"], dataset="cifar100")
# Larger images, patches of 8 × 8: 64 tokens.
RECIPES["tiny_imagenet"] = dataclasses.replace(
    RECIPES["cifar10"],
    dataset="tiny_imagenet",
    model_fields=dict(patch_size=8, num_landmarks=16),
    crop_padding=8,
)
RECIPES["folder"] = dataclasses.replace(RECIPES["tiny_imagenet"], dataset="folder")

# Beside those of the data sets: `vix train --recipe NAME`. Accuracies stand where they were run.
# The original scripts: AdamW at a constant rate, no augmentation. Decay spares norms and biases
# here, and images are normalised by their own statistics instead of (0.5, 0.5).
RECIPES["vix_cifar10"] = TrainConfig(
    dataset="cifar10", model="vin", epochs=40, batch_size=128, lr=1e-3, weight_decay=0.01,
    sched="constant",
)  # fmt: skip
RECIPES["vix_tiny_imagenet"] = dataclasses.replace(
    RECIPES["vix_cifar10"], dataset="tiny_imagenet", model="ccn", epochs=150, batch_size=160
)
# nanovit's: cosine, smoothed labels, flip and crop (of the image itself, not of one enlarged by a
# tenth); the rate falls at every step instead of every epoch.
RECIPES["nanovit_cifar10"] = TrainConfig(
    dataset="cifar10", model="nanovit", epochs=40, batch_size=128, lr=1e-3, min_lr=1e-5,
    weight_decay=1e-4, smoothing=0.1, crop_padding=4, flip=True,
)  # fmt: skip
# What has come since: stronger augmentation, mixed images, an average, stochastic depth. With
# --model vin --set patch_size=4 --set dim=96 --set num_landmarks=8 --epochs 15: 59.1 % on the JPEG
# q75 copy's test images after 32.6 minutes on 2 CPU cores (AMD EPYC), 2026-11-24.
RECIPES["modern_cifar10"] = dataclasses.replace(
    RECIPES["cifar10"],
    model="hybrid_vin",
    model_fields=dict(stochastic_depth=0.1),
    epochs=100,
    warmup_epochs=5,
    weight_decay=0.05,
    clip_grad=1.0,
    aa="rand",
    reprob=0.25,
    mixup=0.2,
    cutmix=1.0,
    model_ema=True,
)
# Batch sizes and epochs of the scripts, where they are not those above.
SCRIPTS: dict[str, dict] = {
    "vit": dict(batch_size=64),
    "vil": dict(batch_size=256),
    "fnet": dict(batch_size=512, epochs=100),
    "vit_rope": dict(batch_size=64),
    "vil_rope": dict(batch_size=320),
    "vip_rope": dict(batch_size=192),
    "vin_rope": dict(batch_size=192),
    "levin": dict(batch_size=192),
    "levip": dict(batch_size=192),
    "cct": dict(batch_size=48, epochs=40),
    "mlp_mixer": dict(batch_size=640, epochs=40),
}


def recipe(name: str, model: str | None = None) -> TrainConfig:
    """The recipe of a data set, or another by its name; for another model if one is named.

    Raises:
        ValueError: no such recipe or model.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}" + did_you_mean(name, RECIPES))
    config = RECIPES[name]
    model = model or config.model
    if model not in PRESETS:
        raise ValueError(f"unknown model {model!r}" + did_you_mean(model, PRESETS))
    cls, preset = PRESETS[model]
    names = field_names(cls)
    fields = {name: value for name, value in config.model_fields.items() if name in names}
    # Widths that come one a stage, or belong to an encoder of its own, stay the preset's.
    for field in ("dim", "depth", "heads", "dim_head", "mlp_dim", "dropout"):
        if isinstance(preset.get(field), tuple) or "transformer" in preset:
            fields.pop(field, None)
    # A convolutional stem cuts no patches.
    if not issubclass(getattr(cls, "embed", PatchEmbed), PatchEmbed):
        fields.pop("patch_size", None)
    # A variant named for its positions keeps them, as does one without queries and keys to turn.
    if "position" in fields:
        turns = "rotary" in field_names(cls.mixer) and fields["position"] in cls.positions
        if not turns or cls.position != "learned":
            del fields["position"]
    if name in ("vix_cifar10", "vix_tiny_imagenet"):
        # The hybrids' scripts are those of the plain models.
        config = dataclasses.replace(config, **SCRIPTS.get(model.removeprefix("hybrid_"), {}))
    return dataclasses.replace(config, model=model, model_fields=fields)
