"""Dropout: how many elements are dropped, what becomes of the others, and that draws are apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import Dropout
from vix_flax.layers.dropout import drop

KEY = jax.random.key(0)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(40_000,), (200, 201), (3, 50, 1, 301)])
def test_a_share_is_dropped_and_the_rest_keeps_the_mean(shape, rate):
    out = np.asarray(drop(jnp.ones(shape), KEY, rate))
    count = out.size
    dropped = (out == 0).sum()
    assert abs(dropped - rate * count) <= 5 * np.sqrt(count * rate * (1 - rate))
    np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-6)


def test_the_two_halves_of_a_word_are_drawn_apart():
    kept = np.asarray(drop(jnp.ones((1000, 40)), KEY, 0.5)) != 0
    correlation = np.corrcoef(kept.T) - np.eye(40)
    assert np.abs(correlation).max() < 5 / np.sqrt(1000)
    rows = np.corrcoef(kept[:100].astype(float)) - np.eye(100)
    assert np.abs(rows).max() < 5.5 / np.sqrt(40)


@pytest.mark.parametrize("rate", [1e-9, 1 - 1e-9])
def test_the_smallest_and_the_largest_rate_work(rate):
    out = np.asarray(drop(jnp.ones((1000, 100)), KEY, rate))
    assert np.isfinite(out).all()
    assert (out == 0).mean() == pytest.approx(rate, abs=1e-3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_gradients_flow_through_what_is_kept_in_the_inputs_dtype(dtype):
    x = jnp.arange(1.0, 33.0).astype(dtype)
    out, pull = jax.vjp(lambda x: drop(x, KEY, 0.25), x)
    (grad,) = pull(jnp.ones_like(out))
    assert out.dtype == grad.dtype == dtype
    np.testing.assert_array_equal(out == 0, grad == 0)


def test_the_layer_draws_in_training_alone_from_its_stream():
    x = jnp.ones((50, 60))
    layer = Dropout(0.5)
    np.testing.assert_array_equal(layer.apply({}, x), x)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, x, True), x)
    draw = lambda seed: layer.apply({}, x, True, rngs={"dropout": jax.random.key(seed)})
    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()
    old_style = layer.apply({}, x, True, rngs={"dropout": jax.random.PRNGKey(1)})
    np.testing.assert_array_equal(old_style, draw(1))
