"""Who sees whom within windows of a map."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import Linear, Nystrom, Softmax, TalkingHeads
from vix_flax.layers import DynamicPositionBias
from vix_flax.mixers import SelfAttention, WindowAttention

x = np.random.default_rng(0).normal(size=(2, 6, 4, 5)).astype("f4")


def mixer(core=None, window=2, **fields):
    return WindowAttention(SelfAttention(core or Softmax(), 2, 4), window, bias_dim=3, **fields)


def drawn(module, x=x):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), shapes)


@pytest.fixture(scope="module", params=[False, True], ids=["short", "long"])
def seen(request):
    """Whether the map is cut the long way, and which positions the output at (3, 1) depends on."""
    module = mixer(long=request.param)
    variables = drawn(module)
    objective = lambda x: module.apply(variables, x)[0, 3, 1].sum()
    gradient = np.asarray(jax.jit(jax.grad(objective))(x))
    np.testing.assert_array_equal(gradient[1], 0)
    return request.param, np.argwhere(np.abs(gradient[0]).max(axis=-1) > 0).tolist()


def test_short_windows_are_neighbours_and_long_ones_far_apart(seen):
    long, positions = seen
    # 6 × 4 positions in windows of 2 × 2: tiles, or every third row and every second column.
    expected = [[0, 1], [0, 3], [3, 1], [3, 3]] if long else [[2, 0], [2, 1], [3, 0], [3, 1]]
    assert positions == expected


@pytest.mark.parametrize(
    ("long", "windows"),
    [
        (False, [[0, 1, 4, 5], [2, 3, 6, 7]]),
        (True, [[0, 2, 4, 6], [1, 3, 5, 7]]),
    ],
)
def test_a_window_can_say_which_positions_it_has(long, windows):
    assert mixer(long=long).positions(2, 4).tolist() == windows


@pytest.mark.parametrize("long", [False, True])
def test_each_window_is_attention_with_the_bias_of_its_offsets(long):
    module = mixer(long=long)
    variables = drawn(module)
    out = np.asarray(jax.jit(module.apply)(variables, x))
    params = variables["params"]

    @jax.jit
    def attend(window):
        bias = DynamicPositionBias(3, 2).apply({"params": params["position_bias"]})
        attention = SelfAttention(Softmax(), 2, 4)
        return attention.apply({"params": params["attention"]}, window, bias=bias)

    for i in range(3):
        for j in range(2):
            rows = [i, i + 3] if long else [2 * i, 2 * i + 1]
            columns = [j, j + 2] if long else [2 * j, 2 * j + 1]
            window = x[:, rows][:, :, columns]
            by_hand = attend(window)
            np.testing.assert_allclose(out[:, rows][:, :, columns], by_hand, rtol=0, atol=1e-5)


def test_one_window_is_the_whole_map():
    square, call = x[:, :4], lambda long: mixer(window=4, long=long)
    variables = drawn(call(True), square)
    long, short = (jax.jit(call(long).apply)(variables, square) for long in (True, False))
    np.testing.assert_allclose(long, short, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("core", "takes"),
    [(Softmax(), True), (TalkingHeads(), True), (Linear(), False), (Nystrom(2, 1, 0), False)],
)
def test_attentions_without_scores_go_without_a_bias(core, takes):
    assert ("position_bias" in drawn(mixer(core))["params"]) == takes


@pytest.mark.parametrize(("size", "window"), [((5, 4), 2), ((6, 3), 2), ((6, 4), 4), ((2, 2), 3)])
def test_windows_must_divide_the_map(size, window):
    message = (
        f"a map of {size[0]} × {size[1]} positions has no whole windows of {window} × {window}"
    )
    with pytest.raises(ValueError, match=message):
        drawn(mixer(window=window), jnp.zeros((1, *size, 5)))


def test_dropout_reaches_the_attention_in_training_alone():
    module = mixer(Softmax(attention_dropout=0.5))
    variables = drawn(module)
    train = partial(module.apply, train=True, rngs={"dropout": jax.random.key(0)})
    plain, out = (np.asarray(jax.jit(call)(variables, x)) for call in (module.apply, train))
    assert np.abs(out - plain).max() > 1e-2
