"""CaiT: whole layers left out in training, branches that start almost silent."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import images, tiny

from vix_flax.models.cait import initial_scale

DEPTH = 2  # of both kinds of blocks
SUBSETS = [(a, b, c, d) for a in (1, 0) for b in (1, 0) for c in (1, 0) for d in (1, 0)]


@cache
def model(**fields):
    small = dict(depth=DEPTH, cls_depth=DEPTH, dropout=0, emb_dropout=0, layer_dropout=0.5)
    return tiny("cait_cifar", **small | fields)


@cache
def drawn():
    """Variables of the right shapes, and tokens of two images."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model().init, jax.random.key(0), images(model()))
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4") / 2, shapes)
    return variables, rng.normal(size=(2, 5, 16)).astype("f4")


@cache
def by_hand():
    """What comes out if only the blocks of a subset are there: the others' LayerScale is 0."""
    variables, tokens = drawn()
    names = [f"{kind}_{i}" for kind in ("blocks", "cls_blocks") for i in range(DEPTH)]

    def encode(present):
        params = dict(variables["params"])
        for name, factor in zip(names, present, strict=True):
            scales = {s: {"scale": factor * params[name][s]["scale"]} for s in ("scale1", "scale2")}
            params[name] = {**params[name], **scales}
        return model().apply({"params": params}, tokens, method="encode")

    return np.asarray(jax.jit(jax.vmap(encode))(jnp.asarray(SUBSETS, jnp.float32)))


def drawn_subsets(rate, draws=500):
    """Which blocks were there in each of many training steps, found by what came out."""
    variables, tokens = drawn()
    encode = partial(model(layer_dropout=rate).apply, train=True, method="encode")
    step = jax.vmap(lambda key: encode(variables, tokens, rngs={"dropout": key}))
    keys = jax.random.split(jax.random.key(1), draws)
    outs = np.asarray(jax.jit(step)(keys))
    distances = np.abs(outs[:, None] - by_hand()).reshape(draws, len(SUBSETS), -1).max(axis=-1)
    assert distances.min(axis=1).max() < 1e-4  # the same blocks for all images
    return np.asarray(SUBSETS)[distances.argmin(axis=1)]


@pytest.fixture(scope="module")
def subsets():
    return drawn_subsets(rate=0.9)


def test_at_least_one_layer_of_each_kind_is_left_in_training(subsets):
    for kind in (subsets[:, :DEPTH], subsets[:, DEPTH:]):
        assert kind.any(axis=1).all()
        # Kept by the draw, or as the last one: each of two layers equally often.
        np.testing.assert_allclose(kind.mean(axis=0), 0.1 + 0.9**2 / 2, atol=0.06)
        np.testing.assert_allclose(kind.all(axis=1).mean(), 0.1**2, atol=0.02)


def test_the_two_kinds_of_layers_are_drawn_apart(subsets):
    same = (subsets[:, :DEPTH] == subsets[:, DEPTH:]).all(axis=1)
    np.testing.assert_allclose(same.mean(), 0.5, atol=0.08)


@pytest.fixture(scope="module")
def evaluate():
    """Variables and tokens to what comes out of all blocks."""
    return jax.jit(partial(model(layer_dropout=0.99).apply, method="encode"))


def test_in_evaluation_all_layers_are_there_and_no_rng_is_needed(evaluate):
    variables, tokens = drawn()
    out = evaluate(variables, tokens)
    np.testing.assert_allclose(out, by_hand()[0], rtol=0, atol=5e-5)


def test_without_layer_dropout_training_needs_no_rng():
    variables, tokens = drawn()
    encode = partial(model(layer_dropout=0).apply, train=True, method="encode")
    assert jax.eval_shape(encode, variables, tokens).shape == (2, 6, 16)


@pytest.mark.parametrize(
    ("layer", "scale"), [(1, 0.1), (18, 0.1), (19, 1e-5), (24, 1e-5), (25, 1e-6), (40, 1e-6)]
)
def test_deeper_layers_start_more_silently(layer, scale):
    assert initial_scale(layer) == scale


def test_each_kind_of_block_counts_its_layers_from_one():
    deep = model(depth=19, cls_depth=20, dim=4, heads=1, dim_head=2, mlp_dim=2)

    def scales(model):
        return [
            [block.layer_scale for block in blocks] for blocks in (model.blocks, model.cls_blocks)
        ]

    found = []
    setup = lambda model: found.extend(scales(model))
    jax.eval_shape(lambda: deep.init(jax.random.key(0), method=setup))
    assert found == [[0.1] * 18 + [1e-5], [0.1] * 18 + [1e-5] * 2]


def test_the_class_token_enters_behind_the_patches_blocks(evaluate):
    variables, tokens = drawn()
    params = variables["params"]
    assert params["pos_embedding"].shape == (1, 24, 16)  # none for a class token
    other = {"params": {**params, "cls_token": params["cls_token"] + 1}}
    before, after = (np.asarray(evaluate(v, tokens)) for v in (variables, other))
    assert before.shape == (2, 1 + 5, 16)
    np.testing.assert_array_equal(before[:, 1:], after[:, 1:])
    assert np.abs(before[:, 0] - after[:, 0]).min(axis=0).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(cls_depth=0), "cls_depth=0 must be a positive int"),
        (dict(cls_depth=None), "cls_depth=None must be a positive int"),
        (dict(layer_dropout=1.0), r"layer_dropout=1\.0 must be at least 0 and below 1"),
        (dict(pool="mean"), "pool='mean' is unknown here; use 'cls'"),
        (dict(depth=0), "depth=0 must be a positive int"),
    ],
)
def test_fields_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        model(**fields)
