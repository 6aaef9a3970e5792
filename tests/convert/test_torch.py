"""Torch state dicts: what does not fit is said, all of it at once. (That what fits is right, the
golden fixtures say.)"""

from pathlib import Path

import golden_models
import numpy as np
import pytest

import vix_flax as vix
from vix_flax.convert.rules import table_for

GOLDEN = Path(__file__).parent.parent / "golden"


def golden(name, **overrides):
    arrays, config = golden_models.load(GOLDEN / f"{name}.npz")
    return golden_models.build(config, **overrides), golden_models.weights(arrays)


def test_everything_wrong_is_listed_in_one_error():
    model, weights = golden("ViN")
    del weights["cls_token"], weights["transformer.layers.1.0.fn.res_conv.weight"]
    weights["surplus.weight"] = np.zeros((2, 3))
    weights["mlp_head.1.bias"] = np.zeros(11)
    with pytest.raises(ValueError, match="does not fit ViN") as error:
        vix.convert.from_torch(model, weights)
    for words in (
        "missing cls_token",
        "missing transformer.layers.1.0.fn.res_conv.weight",
        "left over surplus.weight (2, 3)",
        "misshapen mlp_head.1.bias (11,): head/dense/bias needs (10,)",
    ):
        assert words in str(error.value)


def test_weights_of_another_family_do_not_fit():
    _, weights = golden("ViP")
    model, _ = golden("ViT")
    with pytest.raises(ValueError, match=r"left over .*projection_matrix"):
        vix.convert.from_torch(model, weights)


def test_a_transposed_matrix_is_misshapen():
    model, weights = golden("ViT")
    name = "transformer.layers.0.1.fn.net.0.weight"
    weights[name] = weights[name].T
    with pytest.raises(ValueError, match=r"misshapen .*net.0.weight \(32, 64\)"):
        vix.convert.from_torch(model, weights)


def test_parts_that_cannot_be_joined_are_misshapen():
    model, weights = golden("ViL")
    weights["transformer.layers.0.0.fn.to_k.weight"] = np.zeros((16, 31))
    with pytest.raises(ValueError, match=r"misshapen .*to_q.weight \(32, 32\) \+ .*\(16, 31\)"):
        vix.convert.from_torch(model, weights)


def test_tables_that_follow_from_shapes_are_ignored():
    model, weights = golden("ViTRoPE")
    weights["transformer.pos_emb.emb"] = np.zeros((65, 16))
    vix.convert.from_torch(model, weights)


def test_the_unread_positions_of_rotary_models_are_dropped_unless_a_reference():
    reference, weights = golden("ViTRoPE")
    model, _ = golden("ViTRoPE", reference=False)
    assert "pos_embedding" in vix.convert.from_torch(reference, weights)["params"]
    assert "pos_embedding" not in vix.convert.from_torch(model, weights)["params"]


def test_a_bare_array_or_a_list_will_do():
    model, weights = golden("FNet")
    as_lists = {name: value.tolist() for name, value in weights.items()}
    ours = vix.convert.from_torch(model, as_lists)["params"]["head"]["dense"]["bias"]
    np.testing.assert_array_equal(ours, weights["mlp_head.1.bias"])


def test_every_model_has_a_table():
    for name in vix.list_models():
        assert table_for(vix.create_model(name))
