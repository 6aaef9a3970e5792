"""The table of models and attentions. (Every preset is built in test_zoo and test_grid.)"""

import pytest

import vix_flax as vix
from vix_flax.attention import ATTENTIONS
from vix_flax.presets import attention_grid, create_model


def test_the_grid_has_a_cell_for_each_name_and_each_attention():
    names = ["vit", "fnet2d", "levit"]
    grid = attention_grid(names)
    assert list(grid) == names
    assert all(list(cells) == list(ATTENTIONS) for cells in grid.values())


@pytest.mark.parametrize("name", ["vit", "cait", "t2t_vit", "pit", "cross_vit", "cvt", "cct"])
def test_these_go_with_every_attention(name):
    cells = attention_grid(iter([name]))[name]
    assert cells["linear"] == cells["nystrom"] == cells["softmax"] == (True, "")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fnet2d", "it does not attend"),
        ("fnet", "Fourier does not attend; give mixer='self_attention', too"),
        ("mlp_mixer", "TokenMlp does not attend; give mixer='self_attention', too"),
        ("efficient_vit", "the encoder has its own; give transformer=Transformer(attention=…)"),
    ],
)
def test_a_model_without_a_choice_says_why(name, reason):
    assert set(attention_grid([name])[name].values()) == {(False, reason)}


@pytest.mark.parametrize(
    ("name", "what"),
    [("levit", "LeViT's bias for offsets"), ("crossformer", "CrossFormer's dynamic position bias")],
)
def test_what_is_left_out_is_said_and_only_then(name, what):
    note = f"this attention has no scores to add to: {what} is left out"
    expected = {
        attention: (True, "" if getattr(core, "takes_bias", False) else note)
        for attention, core in ATTENTIONS.items()
    }
    assert attention_grid([name])[name] == expected
    assert {remark for _, remark in expected.values()} == {"", note}


def test_a_model_that_cannot_be_built_with_an_attention_says_why(monkeypatch):
    class Picky(ATTENTIONS["linear"]):
        def __post_init__(self):
            raise ValueError("not on a Sunday")

    monkeypatch.setitem(ATTENTIONS, "picky", Picky)
    assert attention_grid(["vit"])["vit"]["picky"] == (False, "not on a Sunday")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(cls_dept=2), "cait has no field 'cls_dept'; did you mean 'cls_depth'"),
        (dict(layer_dropout="x"), "layer_dropout='x' must be at least 0 and below 1"),
        (dict(embed="unfolds"), "unknown embed 'unfolds'; did you mean 'unfold'"),
        (dict(attention="talking_head"), "unknown attention 'talking_head'; did you mean"),
    ],
)
def test_a_mistake_in_a_new_model_names_what_would_do(fields, message):
    with pytest.raises(ValueError, match=message):
        create_model("cait", **fields)


def test_a_field_of_the_attention_becomes_an_option():
    model = create_model("cross_vit", attention="nystrom", num_landmarks=3)
    assert model.attention_options == {"num_landmarks": 3}
    assert model.core() == vix.attention.Nystrom(num_landmarks=3)
