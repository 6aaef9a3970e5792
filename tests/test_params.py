"""Parameter counts of the published models, every measured configuration; shapes only."""

import collections
import functools
import json
import re
from pathlib import Path

import golden_models
import jax
import pytest

import vix_flax as vix
from vix_flax.layers import PatchEmbed
from vix_flax.models.image import example_image
from vix_flax.presets import PRESETS

HERE = Path(__file__).parent
ROWS = json.loads((HERE / "params_vix.json").read_text())
PACKAGE_ROWS = json.loads((HERE / "params_zoo.json").read_text())
# Presets at the README's and at a CIFAR-10 size, and the model's name among the rows.
PRESETS_OF = {
    "vit": "dual_norm_vit",
    "deepvit": "deepvit",
    "cait": "cait",
    "t2t": "t2t_vit",
    "cross_vit": "cross_vit",
    "pit": "pit",
    "levit": "levit",
    "cvt": "cvt",
    "crossformer": "crossformer",
    "efficient_vit+nystromformer": "efficient_vit",
}
# The published code takes `heads` for these and builds 4.
ALWAYS_FOUR_HEADS = ("ViN", "ViNRoPE", "HybridViNRoPE", "ImageNetHybridViN")
SCRIPTS_WITH_PLAIN_PATCHES = ("ViN", "ViP", "ViL", "FNet")


def build(variant, config):
    cls, fields = golden_models.model_class(variant), dict(config)
    if variant == "FNet2D":
        dim, mult = fields.pop("final_dim"), fields.pop("mlp_mult")
        fields = {**fields, "dim": dim, "mlp_dim": dim * mult}
        fields.pop("image_size")
    if variant in ("CCT", "CCN", "CCP"):
        fields["image_size"] = fields.pop("img_size")
        fields.pop("mlp_radio", None)  # a slip of the script: swallowed, the ratio stays 4
    if variant in ("CvN", "LeViN"):
        heads = ("s1_heads", "s2_heads", "s3_heads") if variant == "CvN" else ("heads",)
        fields |= dict.fromkeys(heads, 4)
    if variant == "HybridMLPMixer":
        fields["image_size"] *= 2  # theirs is the halved map's
    if variant in ALWAYS_FOUR_HEADS:
        fields["heads"] = 4
    if variant in SCRIPTS_WITH_PLAIN_PATCHES:
        fields["embed"] = PatchEmbed
    if hasattr(cls, "reference"):
        fields["reference"] = True
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return cls(**fields)


def rows(table, variant, name):
    """Every row; those of a variant beyond its first are marked slow."""
    seen = collections.Counter()
    for row in table:
        seen[row[variant]] += 1
        marks = pytest.mark.slow if seen[row[variant]] > 1 else ()
        yield pytest.param(row, id=f"{row[variant]}-{row[name]}", marks=marks)


@pytest.mark.parametrize("row", list(rows(ROWS, "variant", "name")))
def test_count_equals_the_published_one(row):
    model = build(row["variant"], row["config"])
    assert count(model) == row["params"]


@functools.cache
def count(model):
    variables = jax.eval_shape(model.init, jax.random.key(0), example_image(model))
    return vix.count_params(variables)


@pytest.mark.parametrize("row", list(rows(PACKAGE_ROWS, "model", "origin")))
def test_count_equals_that_of_vit_pytorch(row):
    name, config = row["model"], row["config"]
    if name == "nystromformer(alone)":
        tokens = jax.ShapeDtypeStruct((1, 9, config["dim"]), "float32")
        shapes = jax.eval_shape(vix.Nystromformer(**config).init, jax.random.key(0), tokens)
        assert vix.count_params(shapes) == row["params"]
        return
    if "transformer" in config:
        encoder = vix.Nystromformer if "nystrom" in name else vix.Encoder
        model = vix.EfficientViT(**{**config, "transformer": encoder(**config["transformer"])})
    else:
        model = PRESETS[PRESETS_OF[name]][0](**config)
    assert count(model) == row["params"]


@pytest.mark.parametrize("name", PRESETS_OF)
def test_presets_are_the_readme_and_a_cifar_configuration(name):
    rows = {
        origin: [r["params"] for r in PACKAGE_ROWS if (r["model"], r["origin"]) == (name, origin)]
        for origin in ("README", "CIFAR")
    }
    assert count(vix.create_model(PRESETS_OF[name])) in rows["README"]
    assert count(vix.create_model(PRESETS_OF[name] + "_cifar")) in rows["CIFAR"]


def test_rotary_models_drop_the_positions_they_do_not_read():
    def rope(**fields):
        return count(vix.create_model("vit_rope", **fields))

    assert rope(reference=True) - rope() == 1025 * 128


def test_the_table_of_the_readme_is_the_zoo():
    readme = (HERE.parent / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| .* \| ([\d,]+) \|$", readme, re.M)
    assert [name for name, *_ in rows] == list(PRESETS)
    for name, cls, shown in rows:
        model = vix.create_model(name)
        assert type(model).__name__ == cls
        assert f"{count(model):,}" == shown, name
