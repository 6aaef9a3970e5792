"""From a golden fixture's own config to the model that must reproduce it."""

import json
from functools import partial
from pathlib import Path

import numpy as np

import vix_flax as vix
from vix_flax.layers import NormPatchEmbed, PatchEmbed

SHELL = (
    "image_size", "patch_size", "channels", "num_classes", "dim", "depth", "heads", "dim_head",
    "mlp_dim", "pool", "num_landmarks", "k", "one_kv_head", "share_kv",
)  # fmt: skip
CORE = {
    "nb_features": "nb_features",
    "pinv_iterations": "pinv_iterations",
    "residual_conv_kernel": "residual_conv_kernel",
    "kernel_eps": "kernel_epsilon",
}
NANO = {
    "nanovit": vix.NanoViT,
    "nanovit_linear": vix.NanoViTLinear,
    "nanovit_linear_conv": vix.NanoViTLinearConv,
}
EMBEDS = {"linear": PatchEmbed, "LN+linear+LN": NormPatchEmbed}
# Models of vit-pytorch, by its names; and by those of the ViX fixtures that hold them.
PACKAGE = {
    "ViT": vix.DualNormViT,
    "DeepViT": vix.DeepViT,
    "CaiT": vix.CaiT,
    "T2TViT": vix.T2TViT,
    "CrossViT": vix.CrossViT,
    "PiT": vix.PiT,
    "LeViT": vix.LeViT,
    "CvT": vix.CvT,
    "CrossFormer": vix.CrossFormer,
}
BASES = {"ViT_vitpytorch": vix.DualNormViT, "LeViT_base": vix.LeViT, "CvT_base": vix.CvT}
TRANSFORMERS = {
    "vit.Transformer": vix.Transformer,
    "Nystromformer": partial(vix.Nystromformer, reference=True),
    "x_transformers.Encoder": vix.Encoder,
}


def model_class(variant: str):
    """Our class for a fixture's variant, or None if we have no such model."""
    if variant in NANO | BASES:
        return (NANO | BASES)[variant]
    name = variant.removesuffix("_pkg")
    return getattr(vix, name, None) if isinstance(getattr(vix, name, None), type) else None


def build(config: dict, image_size: tuple[int, int] | None = None, **overrides):
    """The model of a fixture's config; `reference=True` unless overridden.

    `image_size` is that of the fixture's images, for a model whose config does not say.
    """
    if "meta" in config:
        return build_package(config)
    effective, variant = config["effective"], config["variant"]
    cls = model_class(variant)
    if cls is vix.FNet2D:
        dim = effective.get("dim", effective.get("final_dim"))
        sizes = {name: effective[name] for name in ("num_classes", "depth", "mlp_dim")}
        return cls(dim=dim, **sizes)
    if issubclass(cls, vix.models.LeViT | vix.models.CvT):
        names = cls.__dataclass_fields__.keys() | {"num_landmarks"}
        fields = {name: plain(value) for name, value in effective.items() if name in names}
        if issubclass(cls, vix.models.LeViX):  # the config's is ignored by the published code
            fields["image_size"] = image_size or tuple(2 * side for side in effective["fmap"])
        core = {n: effective[n] for n in ("nb_features",) if n in effective}
        options = {**core, **overrides.pop("attention_options", {})}
        return cls(**{"reference": True, **fields, "attention_options": options, **overrides})
    if issubclass(cls, vix.CCX):
        names = cls.__dataclass_fields__.keys() | {"num_landmarks"}
        fields = {name: plain(value) for name, value in effective.items() if name in names}
        core = {n: effective[n] for n in ("nb_features",) if n in effective}
        options = {**core, **overrides.pop("attention_options", {})}
        fields |= {"image_size": plain(effective["img_size"]), "attention_options": options}
        return cls(**{"reference": True, **fields, **overrides})
    if issubclass(cls, vix.MLPMixer):
        names = ("channels", "patch_size", "dim", "depth", "num_classes", "expansion_factor")
        fields = {name: plain(effective[name]) for name in names}
        size = plain(effective.get("input_image_size", effective["image_size"]))
        return cls(image_size=size, **fields)

    known = vix.models.ViX.__dataclass_fields__.keys() | cls.__dataclass_fields__.keys()
    fields = {n: plain(effective[n]) for n in SHELL if effective.get(n) is not None and n in known}
    fields |= {"reference": True}
    if effective["embedding"] in EMBEDS:
        fields["embed"] = EMBEDS[effective["embedding"]]
    core = {ours: effective[theirs] for theirs, ours in CORE.items() if theirs in effective}
    options = {**core, **overrides.pop("attention_options", {})}
    return cls(**{**fields, **overrides, "attention_options": options})


def build_package(config: dict):
    """The model of a fixture in vit-pytorch's format: `config` is its keywords, and `meta`."""
    fields = {name: plain(value) for name, value in config.items() if name != "meta"}
    if "transformer" in fields:
        kind, given = fields["transformer"]["type"], fields["transformer"]["kwargs"]
        return vix.EfficientViT(**{**fields, "transformer": TRANSFORMERS[kind](**given)})
    return PACKAGE[config["meta"]["cls"]](**fields)


def load(path: Path) -> tuple[dict, dict]:
    """(arrays, config) of a fixture; of vit-pytorch's fixtures the config has a `meta`."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name not in ("config", "meta")}
        config = json.loads(str(file["config"]))
        if "meta" in file.files:
            config["meta"] = json.loads(str(file["meta"]))
    return arrays, config


def weights(arrays: dict) -> dict:
    """The torch state dict in a fixture."""
    return {name[2:]: value for name, value in arrays.items() if name.startswith("w/")}


def plain(value):
    return tuple(value) if isinstance(value, list) else value


def has_model(path: Path) -> bool:
    """Whether the fixture's model exists here."""
    arrays, config = load(path)
    if "meta" in config:
        known = "transformer_source" in config["meta"] or config["meta"].get("cls") in PACKAGE
        return known and "logits" in arrays
    return "effective" in config and model_class(config["variant"]) is not None


def end_of_first_stage(model) -> str:
    """The module whose output a fixture calls `act/stage1`."""
    if isinstance(model, vix.models.CvT):
        return f"blocks_0_{model.s1_depth - 1}"
    depth = model.depth if isinstance(model.depth, int) else model.depth[0]
    return f"blocks_{depth - 1}"
