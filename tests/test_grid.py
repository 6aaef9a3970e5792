"""Any attention in any backbone that attends, or an error that says what would do."""

import pickle

import jax
import jax.numpy as jnp
import pytest
from tiny_models import (
    BATCH,
    assert_gradients_reach_every_parameter,
    assert_images_are_independent,
    compiled_once,
    distinct_names,
    images,
    tiny,
)

from vix_flax.models import AttentionBackbone
from vix_flax.models.efficient import EfficientViT
from vix_flax.presets import PRESETS, attention_grid

# One preset of each backbone, and all it is to be combined with.
BACKBONES = (
    "dual_norm_vit_cifar", "cct", "levin", "cvn", "levit_cifar", "cvt_cifar", "deepvit_cifar",
    "cait_cifar", "cross_vit_cifar", "crossformer_cifar", "t2t_vit_cifar", "pit_cifar",
)  # fmt: skip
COVERED = {PRESETS[name][0] for name in BACKBONES}
CHOICE = ("softmax", "nystrom", "performer", "linformer", "linear")


def test_every_backbone_class_has_a_row():
    """A new backbone does not slip through the grid of attentions."""
    covered = {kind for name in BACKBONES for kind in PRESETS[name][0].__mro__}
    attending = {
        kind for cls, _ in PRESETS.values() for kind in cls.__mro__
        if kind.__module__.startswith("vix_flax.models") and issubclass(kind, AttentionBackbone)
    }  # fmt: skip
    assert attending - covered == {EfficientViT}  # its encoder attends, and is given
    assert {
        name for name, (cls, _) in PRESETS.items() if not issubclass(cls, AttentionBackbone)
    } == {"fnet2d"}


def core_options(attention):
    return {"linformer": {"k": 7}, "nystrom": {"num_landmarks": 5}}.get(attention, {})


# Linear attention computes as the Performer does, from other features; windows and branches take
# long to compile: there `test_the_grid_tells_the_truth` checks shapes, and the rest is slow.
SLOW = {
    *((name.removesuffix("_cifar"), "linear") for name in BACKBONES),
    *((name, "performer") for name in ("crossformer", "cross_vit", "t2t_vit", "pit")),
    *(("crossformer", core) for core in ("linformer", "nystrom")),
    *((name, "performer") for name in ("cvt", "levit")),
    *(
        (name, core)
        for name in ("cvt", "levit", "cross_vit", "t2t_vit", "pit")
        for core in ("linformer", "nystrom")
    ),
}
PAIRS = [
    pytest.param(
        (name, core),
        marks=pytest.mark.slow if (name.removesuffix("_cifar"), core) in SLOW else (),
        id=f"{name}-{core}",
    )
    for name in BACKBONES
    for core in CHOICE
    # As a preset has it: test_zoo.
    if tiny(name, attention=core, **core_options(core)) not in map(tiny, distinct_names())
]


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    name, attention = request.param
    return compiled_once(tiny(name, attention=attention, **core_options(attention)))


def test_any_attention_in_any_backbone(pair):
    assert pair.logits.shape == (BATCH, 5)
    assert_images_are_independent(pair)
    assert_gradients_reach_every_parameter(pair)
    half = pair.model.clone(dtype=jnp.bfloat16)
    logits = jax.eval_shape(half.apply, pair.variables, pair.img)
    assert logits.dtype == jnp.float32
    assert pickle.loads(pickle.dumps(pair.model)) == pair.model


@pytest.mark.parametrize("name", distinct_names())
def test_the_grid_tells_the_truth(name):
    for attention, (works, remark) in attention_grid([name])[name].items():
        if not works:
            assert remark
            with pytest.raises(ValueError, match=r"attention|no field") as error:
                tiny(name, attention=attention, attention_options={"nothing": 1})
            assert "\n" not in str(error.value)
            continue
        compiled = (name.removesuffix("_cifar"), attention) not in SLOW
        if attention in CHOICE and not (PRESETS[name][0] in COVERED and compiled):
            model = tiny(name, attention=attention, **core_options(attention))
            logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images(model))
            assert logits.shape == (BATCH, 5)
            assert model.notes == ((remark,) if remark else ())
