import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import Nystrom, Softmax
from vix_flax.attention.nystrom import convolve_tokens, pseudo_inverse, segment_means


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def qkv(n=10, m=None, b=2):
    m = n if m is None else m
    return normal(b, n, 2, 8), normal(b, m, 2, 8, seed=1), normal(b, m, 2, 5, seed=2)


def filters(core):
    return normal(core.residual_conv_kernel, 2, seed=3)


def run(core, *inputs):
    variables = {}
    if getattr(core, "residual_conv_kernel", 0):
        variables = {"params": {"residual_conv": filters(core)}}
    return jax.jit(core.apply)(variables, *inputs)


@pytest.mark.parametrize("n", [5, 16])
def test_with_a_landmark_for_every_token_it_approaches_softmax(n):
    inputs = qkv(n)
    core = Nystrom(num_landmarks=n, residual_conv_kernel=0, pinv_iterations=20)
    np.testing.assert_allclose(run(core, *inputs), run(Softmax(), *inputs), rtol=0, atol=1e-3)


def test_more_iterations_come_closer_to_softmax():
    inputs = qkv(12)
    exact = run(Softmax(), *inputs)
    errors = [
        np.abs(run(Nystrom(12, iterations, residual_conv_kernel=0), *inputs) - exact).max()
        for iterations in (2, 6, 12)
    ]
    assert errors[0] > errors[1] > errors[2]


def test_more_landmarks_than_tokens_are_as_many_as_tokens():
    inputs = qkv(6)
    few, many = (
        run(Nystrom(pinv_iterations=2, num_landmarks=landmarks), *inputs) for landmarks in (6, 64)
    )
    np.testing.assert_allclose(many, few, rtol=0, atol=1e-6)


def test_the_residual_is_a_convolution_of_the_values():
    q, k, v = qkv(11)
    core = Nystrom(pinv_iterations=2, num_landmarks=4, residual_conv_kernel=5)
    attended = run(Nystrom(pinv_iterations=2, num_landmarks=4, residual_conv_kernel=0), q, k, v)
    residual = correlate(v, filters(core))
    np.testing.assert_allclose(run(core, q, k, v) - attended, residual, rtol=0, atol=5e-6)


def test_a_head_has_one_filter_within_the_bound_of_its_taps():
    params = jax.jit(Nystrom().init)(jax.random.key(0), *qkv())["params"]
    assert params["residual_conv"].shape == (33, 2)
    assert 0.9 * 33**-0.5 < np.abs(params["residual_conv"]).max() <= 33**-0.5


def test_zero_padding_changes_nothing_where_landmarks_divide_the_tokens():
    inputs = qkv(12)
    plain = run(Nystrom(pinv_iterations=2, num_landmarks=4), *inputs)
    padded = run(Nystrom(pinv_iterations=2, num_landmarks=4, zero_pad=True), *inputs)
    np.testing.assert_allclose(padded, plain, rtol=0, atol=1e-6)


def test_zero_padding_is_zeros_in_front():
    inputs = qkv(10)
    in_front = [jnp.pad(x, ((0, 0), (2, 0), (0, 0), (0, 0))) for x in inputs]
    core = Nystrom(pinv_iterations=2, num_landmarks=4, zero_pad=True)
    by_hand = run(Nystrom(pinv_iterations=2, num_landmarks=4), *in_front)[:, 2:]
    np.testing.assert_allclose(run(core, *inputs), by_hand, rtol=0, atol=1e-6)


def test_reference_pads_and_lets_batch_mates_in():
    q, k, v = qkv(10)
    core = Nystrom(num_landmarks=4, reference=True, pinv_iterations=2, residual_conv_kernel=0)
    alone = run(core, q, k, v)[0]
    mixed = run(core, q.at[1].mul(5), k.at[1].mul(5), v)[0]
    assert np.abs(mixed - alone).max() > 1e-4


def test_equal_tokens_stay_finite():
    """All landmarks are then equal and their matrix has rank 1."""
    q, k, v = (jnp.broadcast_to(x[:, :1], x.shape) for x in qkv(12))
    out = run(Nystrom(num_landmarks=4, residual_conv_kernel=0), q, k, v)
    np.testing.assert_allclose(out, v, rtol=0, atol=1e-2)


@pytest.mark.parametrize(("n", "segments"), [(12, 4), (7, 7), (9, 1), (13, 5)])
def test_segment_means_are_of_near_equal_segments(n, segments):
    x = normal(2, n, 2, 3)
    parts = np.array_split(np.asarray(x), segments, axis=1)
    by_hand = np.stack([part.mean(axis=1) for part in parts], axis=1)
    means = jax.jit(segment_means, static_argnums=1)(x, segments)
    np.testing.assert_allclose(means, by_hand, rtol=0, atol=1e-6)


def test_segment_means_add_up_in_float32():
    x = jnp.ones((1, 1000, 1, 1), jnp.bfloat16)
    means = jax.jit(segment_means, static_argnums=1)(x, 2)
    assert means.dtype == jnp.bfloat16
    np.testing.assert_array_equal(means.astype(jnp.float32), 1)


inverted = jax.jit(pseudo_inverse, static_argnums=(1, 2))


@pytest.mark.parametrize("per_matrix", [True, False])
def test_pseudo_inverse_is_numpys(per_matrix):
    x = jax.nn.softmax(2 * normal(2, 3, 6, 6))
    inverse = inverted(x, 25, per_matrix)
    exact = np.linalg.pinv(np.asarray(x, np.float64))
    error = np.abs(inverse - exact).max(axis=(-1, -2)) / np.abs(exact).max(axis=(-1, -2))
    assert error.max() < 1e-3


@pytest.mark.parametrize("per_matrix", [True, False])
def test_pseudo_inverse_has_the_gradient_of_its_steps(per_matrix):
    def plainly(x):
        axis = -1 if per_matrix else None
        rows, columns = (jnp.abs(x).sum(axis=i).max(axis=axis, keepdims=True) for i in (-1, -2))
        z = jnp.matrix_transpose(x) / (rows * columns)[..., None]
        one = jnp.eye(x.shape[-1])
        for _ in range(6):
            y = x @ z
            z = 0.25 * z @ (13 * one - y @ (15 * one - y @ (7 * one - y)))
        return z

    x, g = jax.nn.softmax(2 * normal(2, 3, 6, 6)), normal(2, 3, 6, 6)
    (expected,) = jax.vjp(plainly, x)[1](g)
    (gradient,) = jax.vjp(lambda x: inverted(x, 6, per_matrix), x)[1](g)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_pseudo_inverse_scales_each_matrix_by_itself():
    x = jax.nn.softmax(normal(2, 3, 6, 6))
    one = inverted(x[:1, :1], 1, True)
    np.testing.assert_allclose(inverted(x, 1, True)[:1, :1], one, rtol=0, atol=1e-6)
    assert np.abs(inverted(x, 1, False)[:1, :1] - one).max() > 1e-4


def correlate(v, kernel):
    """The sum over taps t of kernel[t] · v[i + t - taps // 2], zeros outside."""
    v, kernel = np.asarray(v, np.float64), np.asarray(kernel, np.float64)
    taps, n = len(kernel), v.shape[1]
    padded = np.pad(v, ((0, 0), (taps // 2, taps // 2), (0, 0), (0, 0)))
    return sum(kernel[t][:, None] * padded[:, t : t + n] for t in range(taps))


@pytest.mark.parametrize(
    ("n", "block", "taps"),
    [(1, 4, 3), (5, 128, 1), (12, 4, 3), (13, 4, 7), (40, 16, 33)],
)
def test_convolve_tokens_is_a_depthwise_correlation(n, block, taps):
    v, kernel = normal(2, n, 3, 5), normal(taps, 3, seed=1)
    out = jax.jit(convolve_tokens, static_argnums=2)(v, kernel, block)
    np.testing.assert_allclose(out, correlate(v, kernel), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(num_landmarks=0), "num_landmarks=0 must be a positive int"),
        (dict(pinv_iterations=0), "pinv_iterations=0 must be a positive int"),
        (dict(residual_conv_kernel=4), "residual_conv_kernel=4 must be odd, or 0"),
        (dict(residual_conv_kernel=-1), "residual_conv_kernel=-1 must be odd, or 0"),
    ],
)
def test_fields_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        Nystrom(**fields)


def test_the_convolution_is_that_of_self_attention():
    core = Nystrom(num_landmarks=4)
    assert not jax.eval_shape(core.init, jax.random.key(0), *qkv(5, 7))
    assert "params" in jax.eval_shape(core.init, jax.random.key(0), *qkv(7, 7))


def test_a_single_query_attends_exactly():
    q, k, v = qkv(1, 9)
    out = Nystrom(num_landmarks=4).apply({}, q, k, v)
    np.testing.assert_allclose(out, Softmax().apply({}, q, k, v), rtol=0, atol=1e-6)
