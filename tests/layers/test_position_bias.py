"""Biases for offsets, against look-ups by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import DistanceBias, DynamicPositionBias

rng = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("grid", "stride"), [((2, 3), 1), ((3, 2), 2), ((5, 4), 2), ((1, 3), 2), ((4, 3), 3)]
)
def test_a_pair_of_positions_has_the_bias_of_its_distance(grid, stride):
    rows, columns = grid
    table = rng.normal(size=(rows * columns, 2)).astype("f4")
    bias = jax.jit(DistanceBias(2, grid, stride).apply)({"params": {"table": table}})
    queries = [(i, j) for i in range(0, rows, stride) for j in range(0, columns, stride)]
    keys = [(i, j) for i in range(rows) for j in range(columns)]
    by_hand = np.zeros((2, len(queries), len(keys)), "f4")
    for a, (i, j) in enumerate(queries):
        for b, (k, l) in enumerate(keys):
            by_hand[:, a, b] = table[abs(i - k) * columns + abs(j - l)]
    np.testing.assert_array_equal(bias, by_hand)


def test_distance_biases_have_a_row_for_each_distance_and_start_unit_normal():
    shape = jax.eval_shape(DistanceBias(3, (4, 5)).init, jax.random.key(0))
    assert shape["params"]["table"].shape == (20, 3)
    table = np.asarray(
        jax.jit(DistanceBias(8, (20, 20)).init)(jax.random.key(0))["params"]["table"]
    )
    np.testing.assert_allclose([table.mean(), table.std()], [0, 1], atol=0.05)


def dynamic(window, dim=4):
    module = DynamicPositionBias(dim, window)
    shapes = jax.eval_shape(module.init, jax.random.key(0))["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), shapes)
    return params, np.asarray(jax.jit(module.apply)({"params": params}))


def mlp(params, offset):
    x = np.asarray(offset, np.float64)
    for i in (1, 2, 3):
        x = x @ params[f"dense{i}"]["kernel"] + params[f"dense{i}"]["bias"]
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        x = np.maximum(x * params[f"norm{i}"]["scale"] + params[f"norm{i}"]["bias"], 0)
    return (x @ params["dense4"]["kernel"] + params["dense4"]["bias"])[0]


@pytest.mark.parametrize("w", [1, 2, 3])
def test_a_dynamic_bias_is_looked_up_with_the_published_stride(w):
    """The table has 2w + 1 columns, and is read as if it had 2w - 1."""
    params, bias = dynamic(w)
    table = [mlp(params, (i, j)) for i in range(-w, w + 1) for j in range(-w, w + 1)]
    positions = [(i, j) for i in range(w) for j in range(w)]
    by_hand = [
        [table[(i - k + w - 1) * (2 * w - 1) + (j - l + w - 1)] for k, l in positions]
        for i, j in positions
    ]
    assert bias.shape == (1, w * w, w * w)
    np.testing.assert_allclose(bias[0], by_hand, rtol=0, atol=2e-4)


def test_equal_displacements_have_equal_dynamic_biases_and_others_another():
    _, bias = dynamic(3, dim=16)
    found = {}
    for a in range(9):
        for b in range(9):
            displacement = (a // 3 - b // 3, a % 3 - b % 3)
            found.setdefault(displacement, set()).add(float(bias[0, a, b]))
    assert len(found) == 25
    assert all(len(values) == 1 for values in found.values())
    assert len({value for values in found.values() for value in values}) == 25


def test_dynamic_biases_may_be_bfloat16():
    module = DynamicPositionBias(4, 2, jnp.bfloat16)
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0))
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
