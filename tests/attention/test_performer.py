from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import Performer, Softmax, redraw_features
from vix_flax.attention.performer import orthogonal_features


def qkv(n=7, m=9, h=2, b=2, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (b, n, h, 8), (b, m, h, 8), (b, m, h, 5)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@cache
def drawn():
    """2005 directions: 250 blocks of 8, and 5 more."""
    return np.asarray(
        jax.jit(orthogonal_features, static_argnums=(1, 2))(jax.random.key(0), 2005, 8)
    )


def run(core, *inputs, features=16):
    return jax.jit(core.apply)({"features": {"projection": drawn()[:features]}}, *inputs)


def test_many_features_approach_softmax():
    q, k, v = qkv()
    q, k = 0.3 * q, 0.3 * k
    exact = jax.jit(Softmax().apply)({}, q, k, v)

    def error(features):
        core = Performer(features, kernel_epsilon=0.0)
        return np.abs(run(core, q, k, v, features=features) - exact)

    assert error(2000).max() < 0.04
    assert error(2000).mean() < 0.006 < error(16).mean()


def test_it_is_attention_by_positive_features():
    q, k, v = qkv(b=1, h=1)
    out = run(Performer(nb_features=16), q, k, v)
    directions = np.asarray(drawn()[:16], np.float64)

    def features(u):
        u = np.asarray(u[0, :, 0], np.float64) * 8**-0.25
        projected = u @ directions.T
        return projected, projected - 0.5 * np.square(u).sum(axis=1, keepdims=True)

    (projected, q), (all_keys, k) = features(q), features(k)
    q = np.exp(q - projected.max(axis=1, keepdims=True)) + 1e-4
    k = np.exp(k - all_keys.max()) + 1e-4
    weights = q @ k.T
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(out[0, :, 0], weights @ v[0, :, 0], rtol=0, atol=2e-6)


def test_tiles_change_neither_the_result_nor_its_gradients(monkeypatch):
    q, k, v = qkv(b=4)

    def both(q, k, v):
        core, variables = Performer(16), {"features": {"projection": drawn()[:16]}}
        out, pull = jax.vjp(lambda *x: core.apply(variables, *x), q, k, v)
        return out, pull(out)

    whole = jax.jit(both)(q, k[:, :, :1], v)
    monkeypatch.setattr("vix_flax.attention.tiled.TILE_BYTES", {jax.default_backend(): 1})
    tiled = jax.jit(lambda *x: both(*x))(q, k[:, :, :1], v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), tiled, whole)


def test_reference_is_the_same_on_one_image_with_one_head():
    inputs = qkv(b=1, h=1)
    plain, published = (run(Performer(16, reference=flag), *inputs) for flag in (False, True))
    np.testing.assert_allclose(published, plain, rtol=0, atol=1e-6)


def test_reference_lets_batch_mates_in():
    q, k, v = qkv()
    core = Performer(nb_features=16, reference=True)
    alone, mixed = run(core, q, k, v)[0], run(core, q, k.at[1].mul(5), v)[0]
    assert np.abs(mixed - alone).max() > 1e-3


def test_by_default_there_are_d_log_d_features_that_are_no_parameters():
    shapes = jax.eval_shape(Performer().init, jax.random.key(0), *qkv())
    assert jax.tree.map(lambda x: x.shape, shapes) == {"features": {"projection": (16, 8)}}


def test_features_come_from_their_own_stream_or_that_of_the_parameters():
    init, inputs = jax.jit(Performer().init), qkv()

    def projection(**seeds):
        rngs = {stream: jax.random.key(seed) for stream, seed in seeds.items()}
        return init(rngs, *inputs)["features"]["projection"]

    own = projection(params=0, features=2)
    np.testing.assert_array_equal(projection(params=1, features=2), own)
    assert (projection(params=1, features=3) != own).any()
    assert (projection(params=0) != projection(params=1)).any()


def test_training_does_not_redraw():
    core, inputs = Performer(), qkv()
    projection = drawn()[:16]

    @jax.jit
    def train(projection):
        rngs, variables = {"features": jax.random.key(9)}, {"features": {"projection": projection}}
        return core.apply(variables, *inputs, train=True, rngs=rngs, mutable=["features"])

    out, updates = train(projection)
    np.testing.assert_allclose(out, run(core, *inputs), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(updates["features"]["projection"], projection)


def assert_orthogonal(block):
    units = block / np.linalg.norm(block, axis=1, keepdims=True)
    np.testing.assert_allclose(units @ units.T, np.eye(len(block)), rtol=0, atol=1e-5)


def test_features_are_orthogonal_in_blocks_of_d():
    assert (drawn().shape, drawn().dtype) == ((2005, 8), np.float32)
    for start in range(0, 2005, 8):
        assert_orthogonal(drawn()[start : start + 8])


def test_fewer_features_than_d_are_orthogonal():
    few = jax.jit(orthogonal_features, static_argnums=(1, 2))(jax.random.key(1), 3, 8)
    assert few.shape == (3, 8)
    assert_orthogonal(np.asarray(few))


def test_features_are_as_long_as_gaussian_directions():
    squares = np.square(drawn()).sum(axis=1)
    np.testing.assert_allclose(squares.mean(), 8, rtol=0.05)
    np.testing.assert_allclose(squares.var(), 16, rtol=0.2)  # χ² with 8 degrees of freedom
    np.testing.assert_allclose(drawn().T @ drawn() / 2005, np.eye(8), rtol=0, atol=0.1)


def test_redraw_features_draws_every_layer_anew_and_nothing_else():
    layer = {"projection": jnp.asarray(drawn()[:16])}
    variables = {"params": {"w": jnp.ones(3)}, "features": {"a": layer, "b": layer}}
    redrawn = redraw_features(variables, jax.random.key(1))
    a, b = (redrawn["features"][name]["projection"] for name in "ab")
    assert redrawn["params"] is variables["params"]
    assert jax.tree.structure(redrawn) == jax.tree.structure(variables)
    assert (a != b).any()
    assert (a != layer["projection"]).any()
    assert_orthogonal(np.asarray(a[:8]))
    again = redraw_features(variables, jax.random.key(1))["features"]["a"]["projection"]
    np.testing.assert_array_equal(again, a)


def test_redraw_features_needs_features():
    with pytest.raises(ValueError, match="no 'features': the model has no Performer"):
        redraw_features({"params": {}}, jax.random.key(0))


def test_at_least_one_feature_is_needed():
    with pytest.raises(ValueError, match="nb_features=0 must be a positive int"):
        Performer(nb_features=0).init(jax.random.key(0), *qkv())
    one_wide = jnp.ones((1, 3, 1, 1))  # 1 · ln 1 = 0
    with pytest.raises(ValueError, match="for head width 1: at least 1 feature"):
        Performer().init(jax.random.key(0), one_wide, one_wide, one_wide)


def test_features_point_everywhere_alike():
    directions = orthogonal_features(jax.random.key(0), 65536, 8)
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=0.02)
