"""What every attention core promises: `core(q, k, v, *, train=False) -> out`."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import ATTENTIONS

SMALL = {
    "chunked": dict(query_chunk=4, key_chunk=3),
    "nystrom": dict(num_landmarks=4, pinv_iterations=3, residual_conv_kernel=3),
    "performer": dict(nb_features=16),
    "linformer": dict(k=4),
}
CROSS_LENGTH = {"nystrom": dict(num_landmarks=4, pinv_iterations=3, residual_conv_kernel=0)}
MIXING = ("re_attention", "talking_heads")  # heads see each other's weights
every_core = pytest.mark.parametrize("name", ATTENTIONS)


def small(name, **fields):
    return ATTENTIONS[name](**SMALL.get(name, {}), **fields)


def qkv(n=7, m=None, kv_heads=2, seed=0):
    """q (3, n, 2, 8), k (3, m, kv_heads, 8), v (3, m, kv_heads, 6)."""
    rng = np.random.default_rng(seed)
    m = n if m is None else m
    shapes = (3, n, 2, 8), (3, m, kv_heads, 8), (3, m, kv_heads, 6)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def drawn(core, *inputs):
    """Variables of the right shapes, without compiling `init`."""
    rng = np.random.default_rng(9)
    shapes = jax.eval_shape(core.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes)


@cache
def compiled(core):
    """(q, k, v) -> out in evaluation, without any rng; parameters depend on shapes alone."""
    return jax.jit(lambda q, k, v: core.apply(drawn(core, q, k, v), q, k, v))


@every_core
@pytest.mark.parametrize("n", [1, 13])
def test_any_number_of_tokens(name, n):
    out = compiled(small(name))(*qkv(n))
    assert out.shape == (3, n, 2, 6)
    assert np.isfinite(out).all()


@every_core
def test_queries_and_keys_of_other_lengths(name):
    core = ATTENTIONS[name](**CROSS_LENGTH.get(name, SMALL.get(name, {})))
    out = compiled(core)(*qkv(5, 11))
    assert out.shape == (3, 5, 2, 6)
    assert np.isfinite(out).all()


@every_core
def test_an_image_does_not_depend_on_its_batch_mates(name):
    q, k, v = qkv()
    mates = [10 * x for x in qkv(seed=1)]
    call = compiled(small(name))
    alone = call(q, k, v)
    mixed = call(*(x.at[1:].set(mate[1:]) for x, mate in zip((q, k, v), mates, strict=True)))
    np.testing.assert_allclose(mixed[0], alone[0], rtol=0, atol=1e-6)
    assert np.abs(mixed[1:] - alone[1:]).max() > 0.1


@pytest.mark.parametrize("name", [name for name in ATTENTIONS if name not in MIXING])
def test_a_query_head_sees_only_its_own_keys_and_values(name):
    q, k, v = qkv()
    call = compiled(small(name))
    before, after = call(q, k, v), call(q, k.at[:, :, 1].mul(-2), v.at[:, :, 1].add(1))
    np.testing.assert_allclose(after[:, :, 0], before[:, :, 0], rtol=0, atol=1e-6)
    assert np.abs(after[:, :, 1] - before[:, :, 1]).max() > 0.1


@every_core
def test_one_shared_key_value_head_equals_repeating_it(name):
    q, k, v = qkv(kv_heads=1)
    call = compiled(small(name))
    repeated = call(q, jnp.repeat(k, 2, axis=2), jnp.repeat(v, 2, axis=2))
    np.testing.assert_allclose(call(q, k, v), repeated, rtol=0, atol=2e-6)


@every_core
def test_bfloat16_is_close_to_float32(name):
    halves = [x.astype(jnp.bfloat16) for x in qkv(13)]
    call = compiled(small(name))
    out, exact = call(*halves), call(*(x.astype(jnp.float32) for x in halves))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=0, atol=0.06)


@every_core
def test_gradients_are_finite_and_reach_inputs_and_parameters(name):
    core, inputs = small(name), qkv()
    variables = drawn(core, *inputs)
    state = {collection: x for collection, x in variables.items() if collection != "params"}

    @jax.jit
    @jax.grad
    def gradients(at):
        params, inputs = at
        return jnp.sin(core.apply({"params": params, **state}, *inputs)).sum()

    for path, grad in jax.tree_util.tree_leaves_with_path(
        gradients((variables.get("params", {}), inputs))
    ):
        where = f"{name} {jax.tree_util.keystr(path)}"
        assert np.isfinite(grad).all(), where
        assert (np.abs(grad).reshape(len(grad), -1).max(axis=1) > 1e-6).all(), where


@every_core
def test_large_scores_stay_finite(name):
    out = compiled(small(name))(*(30 * x for x in qkv()))
    assert np.isfinite(out).all()


@every_core
def test_a_core_owns_only_its_own_variables(name):
    shapes = jax.eval_shape(small(name).init, jax.random.key(0), *qkv())
    owned = {
        "nystrom": {"params": {"residual_conv": (3, 2)}},
        "performer": {"features": {"projection": (16, 8)}},
        "linformer": {"params": {"proj_k": (7, 4)}},
        "re_attention": {"params": {"mix_after": (2, 2), "norm_bias": (2,), "norm_scale": (2,)}},
        "talking_heads": {"params": {"mix_after": (2, 2), "mix_before": (2, 2)}},
    }
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == owned.get(name, {})


@pytest.mark.parametrize("name", ["softmax", "chunked", "performer", "linear"])
def test_out_is_a_mean_of_values_whatever_their_order(name):
    q, k, v = qkv()
    call = compiled(small(name))
    out = call(q, k, v)
    np.testing.assert_allclose(call(q, k[:, ::-1], v[:, ::-1]), out, rtol=0, atol=2e-6)
    np.testing.assert_allclose(call(q, k, jnp.full_like(v, 3)), 3, rtol=1e-6)
    assert (out <= v.max(axis=1, keepdims=True) + 1e-5).all()
    assert (out >= v.min(axis=1, keepdims=True) - 1e-5).all()
