import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention.products import along_rows, sum_over_tokens


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_sum_over_tokens_is_a_product_with_its_gradients(batch):
    large, small, g = normal(0, *batch, 5, 7), normal(1, *batch, 5, 3), normal(2, *batch, 7, 3)
    plain = lambda large, small: jnp.matrix_transpose(large) @ small
    given = jax.vjp(sum_over_tokens, large, small)
    expected = jax.vjp(plain, large, small)
    np.testing.assert_allclose(given[0], expected[0], atol=1e-5)
    for a, b in zip(given[1](g), expected[1](g), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_sum_over_tokens_turns_nothing_large_round():
    large, small, g = normal(0, 2, 50, 7), normal(1, 2, 50, 3), normal(2, 2, 7, 3)
    program = jax.make_jaxpr(lambda *x: jax.vjp(sum_over_tokens, *x[:2])[1](x[2]))(large, small, g)
    turned = [e.outvars[0].aval.shape for e in program.eqns if e.primitive.name == "transpose"]
    assert all(50 not in shape for shape in turned)


def test_along_rows_repeats_and_its_derivative_sums():
    x, g = normal(0, 2, 5), normal(1, 2, 5, 4)
    out, pull = jax.vjp(lambda x: along_rows(x, 4), x)
    np.testing.assert_array_equal(out, np.repeat(x[..., None], 4, axis=-1))
    np.testing.assert_allclose(pull(g)[0], g.sum(axis=-1), atol=1e-5)
