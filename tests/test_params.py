"""Parameter counts of the published models, every measured configuration; shapes only."""

import json
from pathlib import Path

import golden_models
import jax
import pytest

import vix_flax as vix
from vix_flax.layers import PatchEmbed
from vix_flax.models.image import example_image

ROWS = json.loads(Path(__file__).with_name("params_vix.json").read_text())
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


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['variant']}-{row['name']}" for row in ROWS])
def test_count_equals_the_published_one(row):
    model = build(row["variant"], row["config"])
    variables = jax.eval_shape(model.init, jax.random.key(0), example_image(model))
    assert vix.count_params(variables) == row["params"]


def test_rotary_models_drop_the_positions_they_do_not_read():
    def count(**fields):
        model = vix.create_model("vit_rope", **fields)
        return vix.count_params(jax.eval_shape(model.init, jax.random.key(0), example_image(model)))

    assert count(reference=True) - count() == 1025 * 128
