import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from vix_flax.layers import ACTIVATIONS, activate, gelu

x = jnp.linspace(-6, 6, 41)
exact = lambda x: nn.gelu(x, approximate=False)


def each(f):
    return jax.jit(jax.vmap(f))


def test_gelu_is_the_erf_form():
    np.testing.assert_allclose(jax.jit(gelu)(x), exact(x), rtol=0, atol=1e-6)


def test_gelu_has_its_first_and_second_derivative():
    first, second = jax.grad(gelu), jax.grad(jax.grad(gelu))
    np.testing.assert_allclose(each(first)(x), each(jax.grad(exact))(x), rtol=0, atol=2e-6)
    by_erf = each(jax.grad(jax.grad(exact)))(x)
    np.testing.assert_allclose(each(second)(x), by_erf, rtol=0, atol=5e-6)


def test_gelu_has_a_forward_derivative():
    _, tangent = jax.jit(lambda x: jax.jvp(gelu, (x,), (2 * jnp.ones_like(x),)))(x)
    np.testing.assert_allclose(tangent, 2 * each(jax.grad(exact))(x), rtol=0, atol=4e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_shape_and_dtype(name):
    out = jax.eval_shape(lambda x: activate(x, name), jnp.zeros((2, 3), jnp.bfloat16))
    assert (out.shape, out.dtype) == ((2, 3), jnp.bfloat16)


def test_relu_and_none():
    np.testing.assert_array_equal(activate(x, "relu"), np.maximum(x, 0))
    np.testing.assert_array_equal(activate(x, "none"), x)


def test_an_unknown_activation_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="unknown activation 'gleu'; did you mean 'gelu'"):
        activate(x, "gleu")
