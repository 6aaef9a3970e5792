"""LeViT: stages on shrinking maps, and the block between two of them."""

import jax
import numpy as np
import pytest
from tiny_models import images, tiny

from vix_flax.mixers import LeViTAttention


def model(**fields):
    return tiny("levit_cifar", **fields)


def shapes(model, **given):
    out, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images(model), **given)
    )
    return jax.tree.map(lambda leaf: leaf.shape, (out, variables["params"]))


def test_the_map_shrinks_between_stages():
    levit = model(image_size=(100, 48), stages=3, dim=(16, 24, 20), num_classes=0)
    assert levit.grids == ((7, 3), (4, 2), (2, 1))
    assert levit.num_features == 20
    assert shapes(levit)[0] == (3, 20)
    assert shapes(levit, method="tokens")[0] == (3, 7, 3, 16)


def test_the_block_between_two_stages_has_twice_the_heads_and_a_wide_mlp():
    levit = model(stages=2, dim=(16, 24), heads=(2, 3), depth=(2, 1), mlp_mult=3)
    params = shapes(levit)[1]
    rows = [(16, 2, 16, 48), (16, 2, 16, 48), (16, 4, 24, 48), (24, 3, 24, 72)]
    assert {f"blocks_{i}" for i in range(4)} == {name for name in params if "blocks" in name}
    for i, (width, heads, out, hidden) in enumerate(rows):
        mixer, mlp = params[f"blocks_{i}"]["mixer"], params[f"blocks_{i}"]["mlp"]
        assert mixer["to_q"]["kernel"] == (width, heads * 4)
        assert mixer["to_v"]["kernel"] == (width, heads * 6)
        assert mixer["to_out"]["kernel"] == (heads * 6, out)
        assert mlp["dense1"]["kernel"] == (out, hidden)
        assert mixer["distance_bias"]["table"] == ((2 * 3 if i < 3 else 1 * 2), heads)


def test_dropout_is_in_the_stages_and_not_between_them():
    levit = model(dropout=0.25)
    of_stage, between = levit.mixer(0, False), levit.mixer(0, True)
    assert isinstance(between, LeViTAttention)
    assert (of_stage.out_dropout, of_stage.core.attention_dropout) == (0.25, 0.25)
    assert (between.out_dropout, between.core.attention_dropout) == (0.0, 0.0)
    assert (of_stage.stride, between.stride) == (1, 2)
    rates = []
    levit.init(jax.random.key(0), method=lambda m: rates.extend((b.dropout, b.residual)
                                                              for b in m.blocks))  # fmt: skip
    assert rates == [(0.25, True), (0.0, False), (0.25, True)]


def test_one_value_serves_all_stages_and_the_last_of_several_is_repeated():
    assert model(stages=3, dim=16, heads=2).num_features == 16
    assert shapes(model(stages=3, dim=(16, 8), depth=1, image_size=(32, 32), num_classes=0))[0] == (
        3,
        8,
    )


@pytest.mark.parametrize(("classes", "first"), [(5, 5), (0, 24)])
def test_a_distillation_head_gives_a_pair(classes, first):
    out, params = shapes(model(num_distill_classes=7, num_classes=classes))
    assert out == ((3, first), (3, 7))
    assert params["distill_head"]["kernel"] == (24, 7)
    assert ("classifier" in params) == (classes > 0)


@pytest.mark.parametrize(("attention", "notes"), [("softmax", 0), ("talking_heads", 0),
                                                  ("linear", 1), ("nystrom", 1)])  # fmt: skip
def test_attention_without_scores_goes_without_the_bias_and_says_so(attention, notes):
    levit = model(attention=attention)
    assert len(levit.notes) == notes
    if notes:
        assert levit.notes == (
            "this attention has no scores to add to: LeViT's bias for offsets is left out",
        )
        assert "distance_bias" not in shapes(levit)[1]["blocks_0"]["mixer"]


@pytest.mark.parametrize(
    "field",
    ["stages", "dim", "depth", "heads", "mlp_mult", "dim_key", "dim_value", "num_distill_classes"],
)
def test_every_width_must_be_positive(field):
    with pytest.raises(ValueError, match=f"{field}=0 must be a positive int"):
        model(**{field: 0})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(dim=(1, 2, 3)), r"dim=\(1, 2, 3\) has more values than there are stages \(2\)"),
        (dict(depth=(1, 2, 3)), r"depth=\(1, 2, 3\) has more values than there are stages \(2\)"),
        (dict(heads=(1, 2, 3)), r"heads=\(1, 2, 3\) has more values than there are stages \(2\)"),
        (dict(dropout=1), "dropout=1 must be at least 0 and below 1"),
        (dict(image_size=(8, 8, 8)), r"image_size=\(8, 8, 8\) must be a positive int or"),
        (dict(stages=(2,)), r"stages=\(2,\) must be a positive int$"),
    ],
)
def test_fields_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        model(**fields)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"vix_flax\.resize_positions"):
        jax.eval_shape(model().init, jax.random.key(0), np.zeros((1, 48, 40, 2), "f4"))
