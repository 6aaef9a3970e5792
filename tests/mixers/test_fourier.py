import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.mixers import Fourier
from vix_flax.mixers.fourier import dft_matrices


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def transform(x):
    return jax.jit(lambda x: Fourier().apply({}, x))(x)


def exact(x):
    return np.fft.fftn(np.asarray(x, np.float64), axes=range(1, x.ndim)).real


SEQUENCES = [(1, 1), (2, 5), (3, 2), (5, 8), (8, 5), (9, 7), (16, 16)]


@pytest.mark.parametrize(("n", "c"), SEQUENCES)
def test_sequences_give_the_real_part_of_fft2(n, c):
    x = normal(2, n, c)
    np.testing.assert_allclose(transform(x), np.fft.fft2(x).real, rtol=0, atol=3e-5)


@pytest.mark.parametrize("shape", [(4, 6, 8), (3, 5, 7), (4, 5, 6), (1, 4, 3)])
def test_maps_are_transformed_over_rows_columns_and_channels(shape):
    x = normal(2, *shape)
    np.testing.assert_allclose(transform(x), exact(x), rtol=0, atol=5e-5)


@pytest.mark.parametrize("shape", [(6, 7), (7, 6), (3, 4, 5)])
def test_the_gradient_is_the_transform_itself(shape):
    """Re F is symmetric."""
    x, g = normal(2, *shape), normal(2, *shape, seed=1)
    gradient = jax.jit(jax.grad(lambda x: (Fourier().apply({}, x) * g).sum()))(x)
    np.testing.assert_allclose(gradient, exact(g), rtol=0, atol=3e-5)


def test_it_can_be_mapped_over_batches_and_differentiated_there():
    x = normal(3, 2, 5, 4)
    summed = jax.vmap(lambda x: jnp.square(Fourier().apply({}, x)).sum())
    np.testing.assert_allclose(
        jax.jit(jax.vmap(lambda x: Fourier().apply({}, x)))(x),
        [exact(each) for each in x], rtol=0, atol=3e-5,
    )  # fmt: skip
    gradient = jax.jit(jax.grad(lambda x: summed(x).sum()))(x)
    expected = [2 * exact(exact(each)) for each in x]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(6, 8), (3, 4, 6)])
def test_bfloat16_is_transformed_in_float32(shape):
    x = normal(2, *shape).astype(jnp.bfloat16)
    out, full = transform(x), transform(x.astype(jnp.float32))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), full, rtol=2**-8, atol=1e-4)


def test_an_image_does_not_depend_on_its_batch_mates():
    x = normal(2, 7, 6)
    mixed = transform(x.at[1].mul(100))
    np.testing.assert_allclose(mixed[0], transform(x)[0], rtol=0, atol=1e-5)


def test_there_are_no_parameters():
    assert jax.eval_shape(Fourier().init, jax.random.key(0), jnp.zeros((1, 4, 6))) == {}


def test_dft_matrices_stay_exact_for_many_tokens():
    cos, sin = dft_matrices(1000)
    exact = np.exp(2j * np.pi / 1000 * (np.outer(np.arange(1000), np.arange(1000)) % 1000))
    np.testing.assert_allclose(cos, exact.real, rtol=0, atol=1e-7)
    np.testing.assert_allclose(sin, exact.imag, rtol=0, atol=1e-7)
    assert cos.dtype == sin.dtype == np.float32
