"""Features of any backbone, and a trained backbone under a new head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from test_attention_maps import drawn
from tiny_models import tiny

import vix_flax as vix
from vix_flax.features import HEAD, fine_tune_variables


@pytest.mark.parametrize("name", [*vix.list_models("*_cifar"), "cct", "fnet2d", "efficient_vit_x"])
def test_every_backbone_has_features(name):
    model = tiny(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size(model), 2)))
    outputs = jax.eval_shape(
        lambda v, x: vix.features(model, v, x), shapes, jnp.zeros((3, *size(model), 2))
    )
    assert outputs
    assert all(out.shape[0] == 3 and out.ndim in (3, 4) for out in outputs)


def size(model):
    return getattr(model, "image_size", (8, 12))


def test_the_last_block_is_what_is_pooled():
    model = tiny("vit", depth=2)
    variables, img = drawn(model)
    first, last = vix.features(model, variables, img)
    encode = jax.jit(lambda v, x: model.apply(v, x, method=lambda m, x: m.encode(m.tokens(x))))
    encoded = encode(variables, img)
    np.testing.assert_allclose(last, encoded, rtol=0, atol=1e-5)
    assert np.abs(first - last).max() > 1e-3
    (again,) = vix.features(model, variables, img, layers=[-2])
    np.testing.assert_array_equal(again, first)
    with pytest.raises(ValueError, match=r"layers=\[2\]: there are 2"):
        vix.features(model, variables, img, layers=[2])


@pytest.mark.parametrize(
    "name", ["vit", "cct", pytest.param("cross_vit_cifar", marks=pytest.mark.slow)]
)
def test_a_new_head_on_a_trained_backbone(name):
    model = tiny(name)
    variables, img = drawn(model)
    other = tiny(name, num_classes=4)
    tuned = fine_tune_variables(variables, model, other, jax.random.key(0))
    assert jax.eval_shape(other.apply, tuned, img).shape == (3, 4)
    before, after = (traverse_util.flatten_dict(tree) for tree in (variables, tuned))
    assert before.keys() == after.keys()
    for path, leaf in before.items():
        if not any(HEAD.fullmatch(part) for part in path):
            np.testing.assert_array_equal(after[path], leaf)


def test_a_larger_image_under_the_same_head():
    model, larger = tiny("vit"), tiny("vit", image_size=(12, 12))
    variables, _ = drawn(model)
    tuned = fine_tune_variables(variables, model, larger, jax.random.key(0))
    assert tuned["params"]["pos_embedding"].shape == (1, 37, 16)
    np.testing.assert_array_equal(
        tuned["params"]["head"]["dense"]["kernel"], variables["params"]["head"]["dense"]["kernel"]
    )


def test_models_that_differ_in_more_are_refused():
    model = tiny("vit")
    variables, _ = drawn(model)
    with pytest.raises(ValueError, match=r"differ in more|cannot be resampled"):
        fine_tune_variables(variables, model, tiny("vit", dim=24), jax.random.key(0))
