from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import ReAttention, Softmax, TalkingHeads
from vix_flax.attention.softmax import attention_weights

BYTES_PER_IMAGE = 2 * 7 * 9 * 4  # of the scores of `qkv()`


def qkv(kv_heads=2, seed=0):
    """q (6, 7, 2, 8), k (6, 9, kv_heads, 8), v (6, 9, kv_heads, 5)."""
    rng = np.random.default_rng(seed)
    shapes = (6, 7, 2, 8), (6, 9, kv_heads, 8), (6, 9, kv_heads, 5)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def by_hand(q, k, v, scale):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    weights = np.exp(scale * np.einsum("bnhd,bmhd->bhnm", q, k))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhnm,bmhe->bnhe", weights, v)


@pytest.fixture
def score_budget(monkeypatch):
    """Sets the bytes of scores formed at once."""

    def set_budget(size):
        budget = {jax.default_backend(): size}
        monkeypatch.setattr("vix_flax.attention.softmax.SCORE_BYTES", budget)

    return set_budget


def value_and_grads(core, inputs, variables=None, **given):
    def objective(inputs):
        out = core.apply(variables or {}, *inputs, **given)
        return jnp.sin(out).sum(), out

    (_, out), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(inputs)
    return out, grads


@pytest.mark.parametrize(("scale", "factor"), [(None, 8**-0.5), (0.9, 0.9)])
def test_it_is_the_softmax_of_scaled_products(scale, factor):
    q, k, v = qkv()
    out = jax.jit(Softmax(scale=scale).apply)({}, q, k, v)
    np.testing.assert_allclose(out, by_hand(q, k, v, factor), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_weights_are_float32_and_sum_to_one(kv_heads):
    q, k, _ = (x.astype(jnp.bfloat16) for x in qkv(kv_heads))
    weights = jax.jit(attention_weights)(q, k)
    assert (weights.shape, weights.dtype) == ((6, 2, 7, 9), jnp.float32)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize(("images", "groups"), [(0.1, 6), (1, 6), (2, 3), (3, 2), (4, 2), (5.9, 2)])
def test_groups_divide_the_batch_and_keep_to_the_budget(score_budget, images, groups):
    score_budget(int(images * BYTES_PER_IMAGE))
    apply = partial(Softmax().apply, bias=jnp.zeros((2, 7, 9)))
    assert f"length={groups}" in str(jax.make_jaxpr(apply)({}, *qkv()))


def test_within_the_budget_there_is_one_group(score_budget):
    score_budget(6 * BYTES_PER_IMAGE)
    assert "scan" not in str(jax.make_jaxpr(Softmax().apply)({}, *qkv()))


@pytest.mark.parametrize("given", [{}, {"bias": jnp.linspace(0, 1, 9)}], ids=["tiles", "groups"])
def test_images_in_groups_or_tiles_equal_all_at_once(score_budget, given):
    inputs = qkv()
    out, grads = value_and_grads(Softmax(), inputs, **given)
    score_budget(4 * BYTES_PER_IMAGE)
    grouped, grouped_grads = value_and_grads(Softmax(), inputs, **given)
    np.testing.assert_allclose(grouped, out, rtol=0, atol=1e-6)
    for ours, whole in zip(grouped_grads, grads, strict=True):
        np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "core", [Softmax(), ReAttention(), TalkingHeads()], ids=lambda core: type(core).__name__
)
@pytest.mark.parametrize("biased", ["rows", "keys"])
def test_an_image_in_rows_equals_all_at_once(score_budget, core, biased):
    inputs = qkv()
    given = {"bias": jnp.sin(jnp.arange({"rows": 7, "keys": 1}[biased] * 9.0).reshape(-1, 9))}
    variables = core.init(jax.random.key(0), *inputs)
    out, grads = value_and_grads(core, inputs, variables, **given)
    score_budget(BYTES_PER_IMAGE // 3)
    program = jax.make_jaxpr(partial(core.apply, variables, **given))(*inputs)
    assert "2,7,9" not in str(program)
    in_rows, row_grads = value_and_grads(core, inputs, variables, **given)
    np.testing.assert_allclose(in_rows, out, rtol=2e-6, atol=4e-6)
    for ours, whole in zip(row_grads, grads, strict=True):
        np.testing.assert_allclose(ours, whole, rtol=3e-5, atol=3e-5)


def test_rows_drop_weights_each_by_their_own(score_budget):
    q = k = jnp.zeros((2, 40, 2, 4))
    v = jnp.broadcast_to(jnp.eye(40)[:, None], (2, 40, 2, 40))  # out is the weights
    score_budget(2 * 10 * 40 * 4)
    core, rngs = Softmax(attention_dropout=0.25), {"dropout": jax.random.key(0)}
    weights = jax.jit(lambda *qkv: core.apply({}, *qkv, train=True, rngs=rngs))(q, k, v)
    kept = np.asarray(weights) > 0
    np.testing.assert_allclose(1 - kept.mean(), 0.25, atol=0.03)
    assert (kept[:, :10] != kept[:, 10:20]).any()


def test_images_in_groups_drop_the_same_weights(score_budget):
    core, inputs, rngs = Softmax(attention_dropout=0.3), qkv(), {"dropout": jax.random.key(4)}

    def train():
        return jax.jit(lambda *x: core.apply({}, *x, train=True, rngs=rngs))(*inputs)

    out = train()
    score_budget(2 * BYTES_PER_IMAGE)
    np.testing.assert_allclose(train(), out, rtol=0, atol=1e-6)


def test_dropout_acts_on_each_weight_and_keeps_the_mean():
    q = k = jnp.zeros((2, 40, 2, 4))
    v = jnp.broadcast_to(jnp.eye(40)[:, None], (2, 40, 2, 40))  # out is the weights
    core = Softmax(attention_dropout=0.25)
    rngs = {"dropout": jax.random.key(0)}
    # Arguments all: XLA (jaxlib 0.10.2) at times folds a product with constant zeros to NaN.
    apply = jax.jit(lambda *qkv: core.apply({}, *qkv, train=True, rngs=rngs))
    weights = np.asarray(apply(q, k, v))
    kept = weights > 0
    np.testing.assert_allclose(weights[kept], 1 / (40 * 0.75), rtol=1e-5)
    np.testing.assert_allclose(1 - kept.mean(), 0.25, atol=0.03)
    assert (kept[0] != kept[1]).any()
    np.testing.assert_allclose(jax.jit(core.apply)({}, q, k, v), 1 / 40, rtol=1e-5)


def bias_by_hand(q, k, v, bias):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    weights = np.exp(8**-0.5 * np.einsum("bnhd,bmhd->bhnm", q, k) + np.asarray(bias, np.float64))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("bhnm,bmhe->bnhe", weights, v)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_bias_is_added_to_the_scaled_scores_of_every_image(heads):
    bias = jnp.asarray(np.random.default_rng(3).normal(size=(heads, 7, 9)), jnp.float32)
    out = jax.jit(Softmax().apply)({}, *qkv(), bias=bias)
    np.testing.assert_allclose(out, bias_by_hand(*qkv(), bias), rtol=0, atol=1e-6)


def test_a_bias_of_images_in_groups_has_the_same_gradient(score_budget):
    bias = jnp.asarray(np.random.default_rng(3).normal(size=(2, 7, 9)), jnp.float32)

    def gradient():
        objective = lambda bias: jnp.sin(Softmax().apply({}, *qkv(), bias=bias)).sum()
        return jax.jit(jax.value_and_grad(objective))(bias)

    whole = gradient()
    score_budget(2 * BYTES_PER_IMAGE)
    grouped = gradient()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), grouped, whole
    )


def test_a_bias_is_added_before_scores_are_rounded():
    q = k = jnp.zeros((1, 2, 1, 4), jnp.bfloat16)
    v = jnp.asarray([[[[1.0]], [[0.0]]]])
    bias = jnp.asarray([[[8.01, 8.0], [0.0, 0.0]]])  # equal in bfloat16
    out = Softmax().apply({}, q, k, v, bias=bias)
    assert out[0, 0, 0, 0] > 0.5 + 1e-3
