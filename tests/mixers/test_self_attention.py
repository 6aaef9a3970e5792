from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import Linear, Linformer, Nystrom, Performer, Softmax
from vix_flax.layers import rotary_angles, rotate
from vix_flax.mixers import SelfAttention

x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 10)), jnp.float32)


def mixer(core=None, **fields):
    return SelfAttention(core=Softmax() if core is None else core, heads=2, dim_head=8, **fields)


def params(module, x=x):
    """Parameters of the right shapes, without compiling `init`."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype) / 3, shapes)


def run(module, x=x):
    return jax.jit(module.apply)({"params": params(module)}, x)


def shapes(module):
    return jax.tree.map(lambda leaf: leaf.shape, params(module))


@pytest.mark.parametrize(
    ("rotary", "kv_heads", "share_kv"),
    [(None, 2, False), ("axial", 1, False), ("raster", 2, True), ("raster", 1, True)],
)
def test_it_projects_attends_and_projects_back(rotary, kv_heads, share_kv):
    """Queries first, then keys, then values; shared values are keys before they turn."""
    grid = (1, 5)  # behind a class token
    module = mixer(rotary=rotary, grid=grid, one_kv_head=kv_heads == 1, share_kv=share_kv)
    weights = params(module)
    qkv = (x @ weights["to_qkv"]["kernel"]).reshape(2, 6, -1, 8)
    q, k, v = jnp.split(jnp.concatenate([qkv, qkv[:, :, -kv_heads:]], 2), [2, 2 + kv_heads], 2)
    v = v[:, :, :kv_heads]
    if rotary:
        angles = rotary_angles(rotary, 6, 8, grid)
        q, k = rotate(q, angles), rotate(k, angles)
    attended = jax.jit(Softmax().apply)({}, q, k, v).reshape(2, 6, 16)
    by_hand = attended @ weights["to_out"]["kernel"] + weights["to_out"]["bias"]
    np.testing.assert_allclose(run(module), by_hand, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"to_qkv": {"kernel": (10, 48)}, "to_out": {"kernel": (16, 10), "bias": (10,)}}),
        (
            dict(qkv_bias=True, out_bias=False, one_kv_head=True),
            {"to_qkv": {"kernel": (10, 32), "bias": (32,)}, "to_out": {"kernel": (16, 10)}},
        ),
        (
            dict(one_kv_head=True, share_kv=True, project_out=False),
            {"to_qkv": {"kernel": (10, 24)}},
        ),
    ],
)
def test_fields_decide_which_parameters_there_are(fields, expected):
    assert shapes(mixer(**fields)) == expected


def test_without_output_projection_the_heads_come_out():
    assert run(mixer(project_out=False)).shape == (2, 6, 16)


@pytest.mark.parametrize("core", [Nystrom(), Performer(), Linformer(), Linear()])
def test_projections_are_the_same_whatever_the_core(core):
    own = {name: shape for name, shape in shapes(mixer(core)).items() if name != "core"}
    assert own == shapes(mixer())


@pytest.mark.parametrize("rotary", [None, "raster", "axial"])
def test_a_map_is_its_tokens(rotary):
    module = mixer(rotary=rotary, grid=(2, 3))
    on_a_map = run(module, x.reshape(2, 2, 3, 10))
    assert on_a_map.shape == (2, 2, 3, 10)
    np.testing.assert_allclose(on_a_map.reshape(x.shape), run(module), rtol=0, atol=1e-6)


def test_without_positions_tokens_may_stand_in_any_order():
    order = np.asarray([3, 1, 5, 0, 2, 4])
    np.testing.assert_allclose(run(mixer(), x[:, order]), run(mixer())[:, order], atol=1e-6)
    turned = mixer(rotary="raster")
    assert np.abs(run(turned, x[:, order]) - run(turned)[:, order]).max() > 1e-2


def test_dropout_acts_on_the_output_in_training_alone():
    module = mixer(out_dropout=0.5)
    rngs = {"dropout": jax.random.key(0)}
    train = jax.jit(partial(module.apply, train=True, rngs=rngs))
    dropped = np.asarray(train({"params": params(module)}, x))
    kept = dropped != 0
    np.testing.assert_allclose(kept.mean(), 0.5, atol=0.15)
    np.testing.assert_allclose(dropped[kept], 2 * run(module)[kept], rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close_and_keeps_float32_parameters():
    module = mixer(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(params(module))} == {np.dtype("float32")}
    out = run(module)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), run(mixer()), rtol=0, atol=0.05)


@pytest.mark.parametrize(("rotary", "width", "factor"), [("raster", 7, 2), ("axial", 6, 4)])
def test_rotary_positions_need_paired_features(rotary, width, factor):
    module = SelfAttention(core=Softmax(), heads=2, dim_head=width, rotary=rotary, grid=(2, 3))
    with pytest.raises(ValueError, match=f"dim_head={width} .* must be a multiple of {factor}"):
        params(module)


def test_axial_positions_of_tokens_need_a_grid():
    with pytest.raises(ValueError, match="axial rotary positions need the map's grid; got None"):
        params(mixer(rotary="axial"))
