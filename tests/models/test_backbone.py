"""What every backbone promises of its fields."""

import pickle

import jax.numpy as jnp
import pytest
from flax.core import FrozenDict
from tiny_models import tiny

from vix_flax.attention import Linear, Nystrom, Performer
from vix_flax.mixers import Fourier
from vix_flax.models import AttentionBackbone, Backbone, MapBackbone


class Plain(Backbone, kw_only=True):
    size: object = None


class Attending(AttentionBackbone, kw_only=True):
    num_landmarks: int = 3


class Fixed(AttentionBackbone, kw_only=True):
    fixed_attention = "there is one way to do it"


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ([4, 6], (4, 6)),
        ([[3, 2], (3, [1])], ((3, 2), (3, (1,)))),
        ({"a": 1}, FrozenDict(a=1)),
        ({"a": {"b": 1}}, FrozenDict(a={"b": 1})),
        (3, 3),
        ("cls", "cls"),
    ],
)
def test_lists_and_dicts_become_hashable(given, held):
    model = Plain(num_classes=2, size=given)
    assert model.size == held
    assert type(model.size) is type(held)
    assert hash(model) == hash(Plain(num_classes=2, size=given))
    assert pickle.loads(pickle.dumps(model)) == model


def test_the_attention_takes_the_models_fields_and_the_options():
    model = Attending(num_classes=2, attention=Nystrom, attention_options={"pinv_iterations": 2})
    core = model.core()
    assert (core.num_landmarks, core.pinv_iterations, core.reference) == (3, 2, False)
    assert model.clone(reference=True).core().reference
    given = model.core(num_landmarks=4, attention_dropout=0.5)  # no field of Nystrom's: left out
    assert given == Nystrom(num_landmarks=4, pinv_iterations=2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(channels=0), "channels=0 must be a positive int"),
        (dict(num_classes=True), "num_classes=True must be an int, 0 for features"),
        (dict(dtype="complex64"), "dtype='complex64' must be a floating-point type"),
        (dict(attention_options=3), "attention_options=3 must be a mapping"),
        (dict(attention_options=[("scale", 1)]), r"attention_options=.* must be a mapping"),
        (dict(attention_options={"scal": 1}), "Softmax has no field 'scal'; did you mean 'scale'"),
        (dict(attention="linear"), "'linear' is not a flax.linen Module class"),
        (dict(attention=Performer, attention_options={"nb_features": 0}), "nb_features=0"),
    ],
)
def test_fields_are_checked_at_the_door(fields, message):
    with pytest.raises(ValueError, match=message):
        Attending(**dict(num_classes=2) | fields)


@pytest.mark.parametrize("fields", [dict(attention=Linear), dict(attention_options={"scale": 1.0})])
def test_an_attention_that_would_have_no_effect_is_refused(fields):
    with pytest.raises(ValueError, match="attention has no effect here: there is one way to do it"):
        Fixed(num_classes=2, **fields)
    Fixed(num_classes=2)


@pytest.mark.parametrize(("name", "mixer"), [("fnet", "Fourier"), ("mlp_mixer", "TokenMlp")])
def test_models_that_do_not_attend_say_what_would(name, mixer):
    message = f"no effect here: {mixer} does not attend; give mixer='self_attention', too"
    with pytest.raises(ValueError, match=message):
        tiny(name, attention="linear")
    attends = tiny(name, attention="linear", mixer="self_attention", heads=2, dim_head=4)
    assert attends.fixed_attention == ""
    assert tiny("dual_norm_vit", mixer=Fourier).fixed_attention


def test_a_note_says_what_attention_without_scores_goes_without():
    plain = Attending(num_classes=2)
    assert plain.notes == ()
    assert plain.without_bias("a bias") == ()
    (note,) = plain.clone(attention=Linear).without_bias("a bias")
    assert note == "this attention has no scores to add to: a bias is left out"


def test_the_mean_of_a_bfloat16_map_is_taken_in_float32():
    tokens = jnp.ones((1, 40, 40, 2), jnp.bfloat16)
    pooled = MapBackbone(num_classes=2).apply({}, tokens, method="pooled")
    assert pooled.dtype == jnp.bfloat16
    assert pooled.astype(jnp.float32).tolist() == [[1, 1]]


def test_a_backbone_without_maps_has_no_grids():
    assert Plain(num_classes=2).grids == ()
    with pytest.raises(NotImplementedError):
        Plain(num_classes=2).num_features  # noqa: B018


def test_blocks_are_rematted_only_on_request():
    assert Plain(num_classes=2).rematted(Linear) is Linear
    assert Plain(num_classes=2, remat=True).rematted(Linear) is not Linear
    assert issubclass(Plain(num_classes=2, remat=True).rematted(Linear), Linear)


def test_lists_within_options_are_made_hashable():
    model = tiny("dual_norm_vit", attention_options={"scale": [1, [2]]})
    assert model.attention_options["scale"] == (1, (2,))
    assert isinstance(hash(model), int)
