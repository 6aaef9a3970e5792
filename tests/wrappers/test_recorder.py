"""The Recorder changes no output and lets go of the model."""

import jax
import numpy as np
import pytest
from test_attention_maps import drawn
from tiny_models import tiny

import vix_flax as vix


def test_logits_are_the_models_and_maps_come_with_them():
    model = tiny("vin", depth=2)
    variables, img = drawn(model)
    recorder = vix.Recorder(model)
    shapes = jax.eval_shape(recorder.init, jax.random.key(0), img)
    assert jax.tree.structure(shapes) == jax.tree.structure(variables)
    logits, maps = jax.jit(recorder.apply)(variables, img)
    np.testing.assert_allclose(logits, jax.jit(model.apply)(variables, img), rtol=0, atol=1e-6)
    np.testing.assert_allclose(maps, vix.attention_maps(model, variables, img), rtol=0, atol=1e-6)
    assert recorder.eject() == model
    with pytest.raises(ValueError, match="make a new one"):
        recorder.apply(variables, img)
