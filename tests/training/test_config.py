"""A config that cannot be trained is refused when it is made, by field and value."""

import dataclasses
import re

import pytest

from vix_flax.training import TrainConfig

BAD = [
    ("epochs", 0),
    ("epochs", -1),
    ("epochs", 1.5),
    ("epochs", "3"),
    ("batch_size", 0),
    ("batch_size", 2.0),
    ("lr", 0.0),
    ("lr", -1.0),
    ("lr", float("nan")),
    ("min_lr", -1e-5),
    ("warmup_epochs", -1),
    ("warmup_epochs", 40),
    ("weight_decay", -0.1),
    ("crop_padding", -1),
    ("smoothing", -0.1),
    ("smoothing", 1.0),
    ("model_ema_decay", 1.0),
    ("model_ema_decay", -0.5),
    ("seed", -1),
    ("seed", 0.5),
    ("clip_grad", 0.0),
    ("clip_grad", -1.0),
    ("opt", "sgdd"),
    ("sched", "exponential"),
    # Of another type than the field's.
    ("lr", "fast"),
    ("lr", float("inf")),
    ("lr", True),
    ("epochs", True),
    ("clip_grad", "abc"),
    ("warmup_epochs", "nan"),
    ("opt", []),
    ("dataset", [1]),
    ("data_dir", 3),
    ("flip", "maybe"),
    ("crop_padding", 1.5),
    ("model_fields", 3),
    ("seed", 2**32),
    ("min_lr", 0.1),
    ("layer_decay", 0.0),
    ("layer_decay", 1.1),
    ("mesh", "model=2"),
    ("mesh", "data=0"),
    ("memory_limit", 0.0),
    ("steps_at_once", 0),
    ("steps_at_once", 2),  # with images on the host
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{name}={value}" for name, value in BAD])
def test_a_value_out_of_range_is_refused(field, value):
    with pytest.raises(ValueError, match=re.escape(f"{field}={value!r}")):
        TrainConfig(**{field: value})


def test_a_change_is_checked_too():
    with pytest.raises(ValueError, match="epochs=0"):
        dataclasses.replace(TrainConfig(), epochs=0)


@pytest.mark.parametrize(("field", "value"), [("opt", "adam"), ("sched", "cosin")])
def test_an_unknown_name_gets_a_suggestion(field, value):
    with pytest.raises(ValueError, match=f"{field}.*did you mean '(adamw|cosine)'"):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"clip_grad": 1.0, "smoothing": 0.1, "warmup_epochs": 0.5},
        {"epochs": 1, "batch_size": 1, "weight_decay": 0, "model_ema_decay": 0},
        {"opt": "lamb", "sched": "constant"},
        {"opt": "lion"},
    ],
)
def test_a_sensible_config_is_a_value(fields):
    assert TrainConfig(**fields) == TrainConfig(**fields)
    assert dataclasses.replace(TrainConfig(), **fields) == TrainConfig(**fields)


def test_a_config_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0


@pytest.mark.parametrize("objective", ["mpp", "byol"])
def test_layers_of_a_wrapper_learn_alike(objective):
    with pytest.raises(ValueError, match=rf"layer_decay=0\.5 must be 1 with {objective}"):
        TrainConfig(objective=objective, layer_decay=0.5)


def test_other_epochs_keep_the_warm_ups_share():
    config = TrainConfig(epochs=40, warmup_epochs=2)
    assert config.for_epochs(10) == TrainConfig(epochs=10, warmup_epochs=0.5)
    with pytest.raises(ValueError, match="epochs=0"):
        config.for_epochs(0)
