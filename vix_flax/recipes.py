"""How to train on each data set: a recipe is a TrainConfig, and flags change it.

`vix train --dataset NAME` starts from the recipe of that name; `model_fields` apply to the models
that have them.
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


def recipe(dataset: str, model: str | None = None) -> TrainConfig:
    """The data set's recipe, for another model if one is named.

    Raises:
        ValueError: no such data set or model.
    """
    if dataset not in RECIPES:
        raise ValueError(f"unknown dataset {dataset!r}" + did_you_mean(dataset, RECIPES))
    config = RECIPES[dataset]
    model = model or config.model
    if model not in PRESETS:
        raise ValueError(f"unknown model {model!r}" + did_you_mean(model, PRESETS))
    cls, preset = PRESETS[model]
    names = field_names(cls)
    fields = {name: value for name, value in config.model_fields.items() if name in names}
    # Widths that come one a stage, or belong to an encoder of its own, stay the preset's.
    for name in ("dim", "depth", "heads", "dim_head", "mlp_dim", "dropout"):
        if isinstance(preset.get(name), tuple) or "transformer" in preset:
            fields.pop(name, None)
    # A convolutional stem cuts no patches.
    if not issubclass(getattr(cls, "embed", PatchEmbed), PatchEmbed):
        fields.pop("patch_size", None)
    # A variant named for its positions keeps them, as does one without queries and keys to turn.
    if "position" in fields:
        turns = "rotary" in field_names(cls.mixer) and fields["position"] in cls.positions
        if not turns or cls.position != "learned":
            del fields["position"]
    return dataclasses.replace(config, model=model, model_fields=fields)
