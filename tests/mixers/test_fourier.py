import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.mixers import Fourier
from vix_flax.mixers.fourier import dft_matrices


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def transform(x):
    """A function of its own, so that nothing compiled for another path is reused."""
    return jax.jit(lambda x: Fourier().apply({}, x))(x)


def exact(x):
    return np.fft.fftn(np.asarray(x, np.float64), axes=range(1, x.ndim)).real


@pytest.fixture
def fft_path(monkeypatch):
    """All sequences count as long."""
    monkeypatch.setattr("vix_flax.mixers.fourier.MATRIX_TOKENS", 0)


def uses_fft(x):
    return "fft" in str(jax.make_jaxpr(lambda x: Fourier().apply({}, x))(x))


SEQUENCES = [(1, 1), (2, 5), (3, 2), (5, 8), (8, 5), (9, 7), (16, 16)]


@pytest.mark.parametrize(("n", "c"), SEQUENCES)
def test_matrices_give_the_real_part_of_fft2(n, c):
    x = normal(2, n, c)
    assert not uses_fft(x)
    np.testing.assert_allclose(transform(x), np.fft.fft2(x).real, rtol=0, atol=3e-5)


@pytest.mark.parametrize(("n", "c"), SEQUENCES)
def test_long_sequences_give_it_by_fft(fft_path, n, c):
    x = normal(2, n, c)
    assert uses_fft(x)
    np.testing.assert_allclose(transform(x), np.fft.fft2(x).real, rtol=0, atol=3e-5)


@pytest.mark.parametrize("shape", [(4, 6, 8), (3, 5, 7), (4, 5, 6), (1, 4, 3)])
def test_maps_are_transformed_over_rows_columns_and_channels(shape):
    x = normal(2, *shape)
    np.testing.assert_allclose(transform(x), exact(x), rtol=0, atol=5e-5)


def test_the_matrices_end_at_their_limit(monkeypatch):
    monkeypatch.setattr("vix_flax.mixers.fourier.MATRIX_TOKENS", 6)
    assert not uses_fft(normal(1, 6, 4))
    assert uses_fft(normal(1, 7, 4))


@pytest.mark.parametrize("limit", [0, 2048])
@pytest.mark.parametrize(("n", "c"), [(6, 7), (7, 6)])
def test_the_gradient_is_the_transform_itself(monkeypatch, limit, n, c):
    """Re F is symmetric."""
    monkeypatch.setattr("vix_flax.mixers.fourier.MATRIX_TOKENS", limit)
    x, g = normal(2, n, c), normal(2, n, c, seed=1)
    gradient = jax.jit(jax.grad(lambda x: (Fourier().apply({}, x) * g).sum()))(x)
    np.testing.assert_allclose(gradient, exact(g), rtol=0, atol=3e-5)


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
