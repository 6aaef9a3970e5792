import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec

from vix_flax.layers import BatchNorm, LayerNorm

FLAX = nn.LayerNorm(epsilon=1e-5)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def params(c=8):
    return {"scale": 1 + normal(c, seed=1), "bias": normal(c, seed=2)}


def batch_normed(x):
    variables = {"params": params(), "batch_stats": {"mean": jnp.zeros(8), "var": jnp.ones(8)}}
    return BatchNorm().apply(variables, x, False, mutable=["batch_stats"])[0]


def value_and_grads(module, params, x):
    def objective(params, x):
        out = module.apply({"params": params}, x)
        return jnp.sin(out).sum(), out

    return jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True))(params, x)


@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 4, 8)])
def test_values_and_gradients_are_flaxs(shape):
    x = 3 + 2 * normal(*shape)
    ours, theirs = (value_and_grads(module, params(), x) for module in (LayerNorm(), FLAX))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), ours, theirs)


def test_a_gradient_of_the_gradient_is_flaxs():
    x = normal(3, 8)

    def penalty(module):
        def objective(x):
            return jnp.sin(module.apply({"params": params()}, x)).sum()

        return jax.jit(jax.grad(lambda x: jnp.square(jax.grad(objective)(x)).sum()))(x)

    np.testing.assert_allclose(penalty(LayerNorm()), penalty(FLAX), rtol=1e-4, atol=1e-4)


def test_it_starts_as_mean_zero_and_variance_one():
    out, variables = LayerNorm().init_with_output(jax.random.key(0), 5 + 3 * normal(4, 64))
    np.testing.assert_allclose(out.mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(out.var(axis=-1), 1, rtol=1e-4)
    np.testing.assert_array_equal(variables["params"]["scale"], jnp.ones(64))
    np.testing.assert_array_equal(variables["params"]["bias"], jnp.zeros(64))


def test_a_large_mean_does_not_swallow_the_variance():
    x = 4096 + normal(3, 8)
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(axis=1, keepdims=True)) / exact.std(axis=1, keepdims=True)
    params = {"scale": jnp.ones(8), "bias": jnp.zeros(8)}
    np.testing.assert_allclose(LayerNorm().apply({"params": params}, x), exact, rtol=0, atol=2e-3)


def test_equal_features_become_the_bias():
    out = LayerNorm().apply({"params": params()}, jnp.full((2, 8), 7.0))
    np.testing.assert_allclose(out, jnp.stack([params()["bias"]] * 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "dtype", "out"),
    [
        (jnp.float32, None, jnp.float32),
        (jnp.bfloat16, None, jnp.bfloat16),
        (jnp.float32, jnp.bfloat16, jnp.bfloat16),
        (jnp.bfloat16, jnp.float32, jnp.float32),
    ],
)
def test_the_result_has_dtype_or_that_of_the_input(given, dtype, out):
    x = jnp.zeros((2, 8), given)
    y, variables = jax.eval_shape(LayerNorm(dtype=dtype).init_with_output, jax.random.key(0), x)
    assert y.dtype == out
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_bfloat16_has_float32_statistics():
    x = (100 + normal(3, 64)).astype(jnp.bfloat16)
    half, full = (LayerNorm().apply({"params": params(64)}, x.astype(d)) for d in (x.dtype, float))
    np.testing.assert_array_equal(half, full.astype(jnp.bfloat16))


def test_batch_norm_keeps_nine_tenths_of_its_running_statistics():
    x = 3 + 2 * normal(4, 3, 8)
    variables = {
        "params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "batch_stats": {"mean": jnp.full(8, 5.0), "var": jnp.full(8, 7.0)},
    }
    apply = BatchNorm().apply
    _, updated = apply(variables, x, use_running_average=False, mutable=["batch_stats"])
    stats, rows = updated["batch_stats"], np.asarray(x).reshape(-1, 8)
    np.testing.assert_allclose(stats["mean"], 0.9 * 5 + 0.1 * rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 * 7 + 0.1 * rows.var(axis=0), rtol=1e-4)


def test_batch_norm_adds_epsilon_to_the_variance():
    variables = {
        "params": {"scale": jnp.ones(1), "bias": jnp.zeros(1)},
        "batch_stats": {"mean": jnp.full(1, 2.0), "var": jnp.full(1, 3e-5)},
    }
    out = BatchNorm().apply(variables, jnp.full((1, 1), 3.0), use_running_average=True)
    np.testing.assert_allclose(out, 1 / np.sqrt(4e-5), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(6, 8), (2, 3, 4, 8)])
def test_batch_norms_values_statistics_and_gradients_are_flaxs(shape, dtype):
    x = (3 + 2 * normal(*shape)).astype(dtype)
    fresh = {"mean": jnp.zeros(8), "var": jnp.ones(8)}

    def value_and_grads(norm):
        def objective(params, x):
            variables = {"params": params, "batch_stats": fresh}
            given = dict(use_running_average=False, mutable=["batch_stats"])
            out, updated = norm.apply(variables, x, **given)
            return jnp.sin(out.astype(jnp.float32)).sum(), (out, updated)

        return jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True))(params(), x)

    flax = nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=dtype, use_fast_variance=False)
    ours, theirs = map(value_and_grads, (BatchNorm(), flax))
    close = dict(rtol=1e-5, atol=1e-5) if dtype == jnp.float32 else dict(rtol=2e-2, atol=2e-2)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), **close)


def test_a_large_mean_does_not_swallow_the_variance_of_a_batch():
    x = 4096 + normal(64, 3)
    variables = BatchNorm().init(jax.random.key(0), x, True)
    y, _ = BatchNorm().apply(variables, x, False, mutable=["batch_stats"])
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(axis=0)) / exact.std(axis=0)
    np.testing.assert_allclose(y, exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "norm", [lambda x: LayerNorm().apply({"params": params()}, x), batch_normed]
)
def test_the_backward_pass_keeps_the_input_as_it_was_given(norm):
    x = normal(32, 8).astype(jnp.bfloat16)
    large = [leaf for leaf in jax.tree.leaves(jax.vjp(norm, x)[1]) if leaf.size == x.size]
    assert [leaf.dtype for leaf in large] == [x.dtype]


def test_inside_shard_map_batch_norm_meets_once_in_either_pass():
    """What it computes on several devices: tests/test_devices.py."""
    x, cut, whole = normal(6, 8), PartitionSpec("data"), PartitionSpec()
    loss = lambda x: jnp.sin(batch_normed(x)).sum()
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    by_hand = jax.shard_map(
        jax.value_and_grad(loss), mesh=mesh, in_specs=cut, out_specs=(whole, cut), check_vma=False
    )
    program = jax.make_jaxpr(by_hand)(x).pretty_print()
    assert (program.count("all_gather["), program.count("psum[")) == (1, 1)
    plain = jax.value_and_grad(loss)(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), by_hand(x), plain)
