"""The feed-forward half of a block."""

from functools import partial

import jax
import numpy as np
import pytest
from flax import linen as nn

from vix_flax.layers import GluMlp, Mlp

x = np.random.default_rng(0).normal(size=(2, 9, 6)).astype("f4")


def params(module):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), shapes)


def run(module, **given):
    return np.asarray(jax.jit(partial(module.apply, **given))({"params": params(module)}, x))


def dense(params, x):
    return x @ params["kernel"] + params["bias"]


@pytest.mark.parametrize(("name", "activation"), [("gelu", partial(nn.gelu, approximate=False)),
                                                  ("relu", nn.relu)])  # fmt: skip
def test_two_dense_layers_and_an_activation(name, activation):
    module = Mlp(4, name)
    weights = params(module)
    by_hand = dense(weights["dense2"], np.asarray(jax.jit(activation)(dense(weights["dense1"], x))))
    np.testing.assert_allclose(run(module), by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cls", [Mlp, GluMlp])
def test_the_backward_pass_keeps_hidden_units_once_and_its_gradients_are_plain(cls):
    module = cls(24)
    weights = params(module)

    def plain(weights, x):
        return dense(weights["dense2"], module.hidden(dense(weights["dense1"], x)))

    apply = lambda weights, x: module.apply({"params": weights}, x)
    out, pull = jax.vjp(apply, weights, x)
    _, plain_pull = jax.vjp(plain, weights, x)
    hidden = 2 * 9 * module.hidden_features
    assert sum(leaf.size for leaf in jax.tree.leaves(pull) if leaf.size >= 2 * 9 * 24) == hidden
    for a, b in zip(jax.tree.leaves(pull(out)), jax.tree.leaves(plain_pull(out)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_second_half_of_a_gated_mlps_hidden_units_is_the_gate():
    module = GluMlp(4, "relu")
    weights = params(module)
    assert weights["dense1"]["kernel"].shape == (6, 8)
    assert weights["dense2"]["kernel"].shape == (4, 6)
    hidden = dense(weights["dense1"], x)
    by_hand = dense(weights["dense2"], hidden[..., :4] * np.maximum(hidden[..., 4:], 0))
    np.testing.assert_allclose(run(module), by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cls", [Mlp, GluMlp])
@pytest.mark.parametrize("drops_output", [True, False])
def test_dropout_is_on_the_hidden_units_and_on_the_output_if_wanted(cls, drops_output):
    module = cls(4, dropout=0.5, drops_output=drops_output)
    train = run(module, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose((train == 0).mean(), 0.5 * drops_output, atol=0.15)
    undropped = run(module)
    # Also where the output is kept, it is not simply twice the undropped one.
    assert np.abs(train - undropped * (2 if drops_output else 1))[train != 0].max() > 0.1
