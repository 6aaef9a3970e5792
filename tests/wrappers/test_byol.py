"""BYOL: the slow copy gets no gradient, moves only when told, and the backbone stays loadable."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vix_flax as vix
from vix_flax.wrappers import update_target
from vix_flax.wrappers.byol import cosine_loss

VIT = vix.DualNormViT(
    image_size=8, patch_size=4, num_classes=3, dim=8, depth=1, heads=2, dim_head=4, mlp_dim=8
)  # fmt: skip
BYOL = vix.BYOL(net=VIT, projection_size=4, projection_hidden_size=6, moving_average_decay=0.9)
VIEWS = jax.random.normal(jax.random.key(0), (2, 4, 8, 8, 3))


@pytest.fixture(scope="module")
def variables():
    drawn = jax.jit(BYOL.init)(jax.random.key(1), *VIEWS)
    # Apart from the online encoder, as after some training.
    shaken = jax.tree.map(lambda p: p + 0.3, drawn["target"]["encoder"]["params"])
    return {**drawn, "target": {"encoder": {**drawn["target"]["encoder"], "params": shaken}}}


@partial(jax.jit, static_argnames="model")
def loss(variables, views=VIEWS, model=BYOL):
    out, _ = model.apply(variables, *views, train=True, mutable=["batch_stats", "target"])
    return out


def test_the_slow_copy_drops_out_too(variables):
    model = BYOL.clone(net=VIT.clone(dropout=0.5))

    @jax.jit
    def seen(key):
        rngs = {"dropout": key}
        given = dict(train=True, mutable=["batch_stats", "target"], rngs=rngs)
        return model.apply(variables, *VIEWS, **given)[1]["target"]["encoder"]["batch_stats"]

    one, same, other = (seen(jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


def test_it_starts_as_a_copy():
    drawn = jax.jit(BYOL.init)(jax.random.key(1), *VIEWS)
    jax.tree.map(
        np.testing.assert_array_equal, drawn["target"]["encoder"]["params"],
        drawn["params"]["online"],
    )  # fmt: skip


def test_the_target_matters_and_gets_no_gradient(variables):
    grads = jax.jit(jax.grad(loss))(variables)
    assert not any(np.any(g) for g in jax.tree.leaves(grads["target"]))
    assert np.abs(grads["params"]["online"]["net"]["pos_embedding"]).max() > 0
    assert np.abs(grads["params"]["predictor"]["dense2"]["kernel"]).max() > 0
    other = jax.tree.map(lambda p: -p, variables["target"])
    assert abs(loss({**variables, "target": other}) - loss(variables)) > 1e-3


def test_views_are_alike(variables):
    np.testing.assert_allclose(loss(variables), loss(variables, VIEWS[::-1]), rtol=1e-3)


def test_the_target_moves_by_its_decay(variables):
    moved = update_target(variables, 0.9)["target"]["encoder"]["params"]
    jax.tree.map(
        lambda after, before, online: np.testing.assert_allclose(
            after, 0.9 * before + 0.1 * online, rtol=1e-5, atol=1e-6
        ),
        moved,
        variables["target"]["encoder"]["params"],
        variables["params"]["online"],
    )


def test_the_net_loads_in_the_plain_model(variables):
    model, plain = BYOL.to_model(variables)
    assert model == VIT
    assert model.apply(plain, VIEWS[0]).shape == (4, 3)


@pytest.mark.parametrize("fields", [dict(joint_views=True), dict(simplices=3, simplex_dim=2)])
def test_forms_of_today(fields):
    model = vix.BYOL(net=VIT, projection_size=4, projection_hidden_size=6, **fields)
    drawn = jax.eval_shape(model.init, jax.random.key(1), *VIEWS)
    assert jax.eval_shape(lambda v: loss(v, model=model), drawn).shape == ()


def test_the_loss_is_an_angle():
    x = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    y = jnp.array([[3.0, 0.0], [1.0, 0.0], [-1.0, -1.0]])
    np.testing.assert_allclose(cosine_loss(x, y), [0, 2, 4], atol=1e-5)


def test_one_image_is_no_batch(variables):
    with pytest.raises(ValueError, match="2 images or more"):
        loss(variables, VIEWS[:, :1])
    with pytest.raises(ValueError, match=r"moving_average_decay=1\.5 must be from 0 to 1"):
        vix.BYOL(net=VIT, moving_average_decay=1.5)
