"""Schedules at the points that define them; decay and clipping do what they say and no more."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

import vix_flax as vix
from vix_flax.models.image import example_image
from vix_flax.training import decay_mask, make_optimizer, make_schedule
from vix_flax.training.optimizer import (
    OPTIMIZERS,
    SCHEDULES,
    evaluated_params,
    layer_scales,
)

SIZES = dict(image_size=8, patch_size=2, dim=16, depth=1, heads=2, dim_head=8, mlp_dim=16)


def test_cosine_starts_at_lr_and_ends_at_min_lr():
    schedule = make_schedule("cosine", 0.1, steps=100, min_lr=0.02)
    assert schedule(0) == pytest.approx(0.1)
    assert schedule(50) == pytest.approx(0.06)
    assert schedule(100) == pytest.approx(0.02)
    assert schedule(150) == pytest.approx(0.02)


def test_cosine_after_a_warm_up():
    schedule = make_schedule("cosine", 0.1, steps=100, warmup_steps=20, min_lr=0.02)
    assert schedule(0) == 0
    assert schedule(10) == pytest.approx(0.05)
    assert schedule(20) == pytest.approx(0.1)
    assert schedule(60) == pytest.approx(0.06)
    assert schedule(100) == pytest.approx(0.02)


@pytest.mark.parametrize("warmup", [0, 20])
def test_cosine_only_falls_after_the_warm_up(warmup):
    schedule = make_schedule("cosine", 0.1, steps=100, warmup_steps=warmup)
    rates = [float(schedule(step)) for step in range(warmup, 101)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_constant_stays():
    schedule = make_schedule("constant", 0.1, steps=100)
    assert [float(schedule(step)) for step in (0, 1, 99, 1000)] == pytest.approx([0.1] * 4)


def test_constant_after_a_warm_up():
    schedule = make_schedule("constant", 0.1, steps=100, warmup_steps=20)
    rates = [float(schedule(step)) for step in (0, 10, 20, 99, 1000)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("warmup", [0, 20])
def test_linear_falls_to_min_lr(warmup):
    schedule = make_schedule("linear", 0.1, steps=100, warmup_steps=warmup, min_lr=0.02)
    middle = (100 + warmup) // 2
    rates = [float(schedule(step)) for step in (warmup, middle, 100, 150)]
    assert rates == pytest.approx([0.1, 0.06, 0.02, 0.02])


def test_wsd_stays_and_falls_in_the_last_fifth():
    schedule = make_schedule("wsd", 0.1, steps=120, warmup_steps=20, min_lr=0.02)
    rates = [float(schedule(step)) for step in (0, 10, 20, 60, 100, 110, 120, 200)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.1, 0.1, 0.06, 0.02, 0.02])


def test_rsqrt_halves_at_four_times_the_warm_up():
    schedule = make_schedule("rsqrt", 0.1, steps=1000, warmup_steps=20, min_lr=0.01)
    rates = [float(schedule(step)) for step in (10, 20, 80, 320, 10**6)]
    assert rates == pytest.approx([0.05, 0.1, 0.05, 0.025, 0.01])


@pytest.mark.parametrize("sched", SCHEDULES)
def test_every_schedule_warms_up(sched):
    schedule = make_schedule(sched, 0.1, steps=100, warmup_steps=10)
    assert [float(schedule(step)) for step in (0, 5, 10)] == pytest.approx([0, 0.05, 0.1])
    assert max(float(schedule(step)) for step in range(100)) == pytest.approx(0.1)


def test_a_schedule_free_optimizer_evaluates_its_average():
    tx = make_optimizer("schedule_free_adamw", optax.constant_schedule(0.1), 0.0)
    params, opt_state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, opt_state = tx.update(params, opt_state, params)
        params = optax.apply_updates(params, updates)
    averaged = evaluated_params(params, opt_state)
    z, x = opt_state.z["cls_token"], averaged["cls_token"]
    np.testing.assert_allclose(
        params["cls_token"], 0.1 * z + 0.9 * x, rtol=1e-5
    )  # arXiv:2405.15682
    assert not np.allclose(x, params["cls_token"])
    plain = make_optimizer("adamw", optax.constant_schedule(0.1), 0.0)
    assert evaluated_params(params, plain.init(params)) is params


@pytest.mark.parametrize(
    ("name", "fields"),
    [("vit", SIZES), ("vil", SIZES), ("hybrid_vin", SIZES | {"patch_size": 1}), ("fnet2d", {})],
)
def test_decay_acts_on_kernels_but_not_on_norms_biases_tokens_and_positions(name, fields):
    model = vix.create_model(name, **fields)
    params = jax.eval_shape(model.init, jax.random.key(0), example_image(model))["params"]
    mask = traverse_util.flatten_dict(decay_mask(params))
    assert mask.keys() == traverse_util.flatten_dict(params).keys()
    for path, decays in mask.items():
        if path[-1] in ("bias", "scale", "cls_token", "pos_embedding"):
            assert not decays, path
        if path[-1] == "kernel":
            assert decays, path
    assert set(mask.values()) == {True, False}


PARAMS = {
    "dense": {"kernel": jnp.full((3, 4), 2.0), "bias": jnp.full(4, 2.0)},
    "norm": {"scale": jnp.full(4, 2.0), "bias": jnp.full(4, 2.0)},
    "cls_token": jnp.full((1, 1, 4), 2.0),
    "pos_embedding": jnp.full((1, 5, 4), 2.0),
}


def after_a_step(tx, params, grads):
    updates, _ = tx.update(grads, tx.init(params), params)
    return optax.apply_updates(params, updates)


@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_without_gradients_only_unmasked_parameters_shrink(opt):
    tx = make_optimizer(opt, optax.constant_schedule(0.1), weight_decay=0.5)
    after = after_a_step(tx, PARAMS, jax.tree.map(jnp.zeros_like, PARAMS))
    assert (after["dense"]["kernel"] < 2).all()
    after["dense"]["kernel"] = PARAMS["dense"]["kernel"]
    jax.tree.map(np.testing.assert_array_equal, after, PARAMS)


@pytest.mark.parametrize("opt", ["adamw", "lion", "sgd", "adafactor", "muon"])
def test_decay_is_decoupled_from_the_gradient(opt):
    tx = make_optimizer(opt, optax.constant_schedule(0.1), weight_decay=0.5)
    after = after_a_step(tx, PARAMS, jax.tree.map(jnp.zeros_like, PARAMS))
    np.testing.assert_allclose(after["dense"]["kernel"], 2 * (1 - 0.1 * 0.5), rtol=1e-6)


@pytest.mark.parametrize("opt", OPTIMIZERS)
def test_every_optimizer_goes_down(opt):
    tx = make_optimizer(opt, optax.constant_schedule(0.05), weight_decay=0.0)
    loss = lambda p: sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(p))
    assert loss(after_a_step(tx, PARAMS, jax.grad(loss)(PARAMS))) < loss(PARAMS)


@pytest.mark.parametrize(("clip", "norm"), [(None, 5.0), (1.0, 1.0), (7.0, 5.0)])
def test_gradients_are_clipped_to_the_global_norm(clip, norm):
    tx = make_optimizer("adamw", optax.constant_schedule(0.1), 0.0, clip)
    params = {"a": {"kernel": jnp.zeros(1)}, "b": {"kernel": jnp.zeros(1)}}
    grads = {"a": {"kernel": jnp.array([3.0])}, "b": {"kernel": jnp.array([-4.0])}}
    _, state = tx.update(grads, tx.init(params), params)
    first_moment = optax.tree_utils.tree_get(state, "mu")
    assert optax.tree.norm(first_moment) == pytest.approx(0.1 * norm, rel=1e-5)
    share = first_moment["b"]["kernel"] / first_moment["a"]["kernel"]
    np.testing.assert_allclose(share, -4 / 3, rtol=1e-6)


def scales_of(model):
    """Name of each part of the model → the scales of its parameters, at a decay of ½."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), example_image(model))
    scales = layer_scales(shapes["params"], 0.5)
    return {name: set(jax.tree.leaves(part)) for name, part in scales.items()}


def test_every_layer_learns_half_as_fast_as_the_next():
    assert scales_of(vix.ViT(**{**SIZES, "depth": 2}, num_classes=3)) == {
        "head": {1},
        "blocks_1": {0.5},
        "blocks_0": {0.25},
        "cls_token": {0.125},
        "pos_embedding": {0.125},
        "embedding": {0.125},
    }


def test_blocks_of_the_class_token_come_last():
    scales = scales_of(vix.create_model("cait_cifar", depth=2, cls_depth=1))
    order = ("embedding", "blocks_0", "blocks_1", "cls_blocks_0", "head")
    assert [scales[name] for name in order] == [{0.0625}, {0.125}, {0.25}, {0.5}, {1}]


def test_a_stage_begins_with_its_convolution():
    scales = scales_of(vix.create_model("cvt_cifar"))
    order = ("convs_0", "blocks_0_0", "convs_1", "blocks_1_0", "classifier")
    values = [max(scales[name]) for name in order]
    assert values == sorted(values)
    assert len(set(values)) == len(order)


@pytest.mark.parametrize(
    "name",
    [  # of two sizes of one model, the larger is slow
        pytest.param(name, marks=pytest.mark.slow if f"{name}_cifar" in vix.list_models() else ())
        for name in vix.list_models()
    ],
)
def test_every_model_learns_slowest_at_the_image(name):
    scales = scales_of(vix.create_model(name))
    last = max(min(scales[part]) for part in scales if part.startswith(("head", "classifier")))
    first = [part for part in scales if part.startswith(("embedding", "tokenizer", "stem", "conv"))]
    assert last == 1
    assert min(min(scales[part]) for part in first) == min(map(min, scales.values())) < 1


def test_branches_begin_alike():
    scales = scales_of(vix.create_model("cross_vit_cifar"))
    assert scales["embeddings_0"] == scales["embeddings_1"]
    assert max(scales["embeddings_1"]) < min(scales["encoders_0_0"])


def test_blocks_of_an_embedding_are_embedding():
    scales = scales_of(vix.create_model("t2t_vit_cifar"))
    assert len(scales["embedding"]) == 1
    assert max(scales["embedding"]) < min(scales["blocks_0"])


@pytest.mark.parametrize("opt", ["adamw", "schedule_free_adamw"])
def test_updates_are_scaled_by_layer(opt):
    params = {"head": {"kernel": jnp.ones(3)}, "embedding": {"kernel": jnp.ones(3)}}
    grads = jax.tree.map(jnp.ones_like, params)

    def update(layer_decay):
        tx = make_optimizer(opt, optax.constant_schedule(0.1), 0.1, layer_decay=layer_decay)
        return tx.update(grads, tx.init(params), params)[0]

    plain, scaled = update(1.0), update(0.5)
    np.testing.assert_allclose(scaled["head"]["kernel"], plain["head"]["kernel"], rtol=1e-6)
    ratio = scaled["embedding"]["kernel"] / plain["embedding"]["kernel"]
    np.testing.assert_allclose(ratio, 0.5, rtol=1e-5)
