"""Fourier mixing: the real part of the discrete Fourier transform over all positions and features.

Lee-Thorp et al. 2021 (FNet), arXiv:2105.03824. No parameters. Cost O(n² c) with a small constant
for sequences of up to `MATRIX_TOKENS` tokens, O(n c log(n c)) beyond.
(b, *space, c) -> (b, *space, c), unnormalised, always float32 inside.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

# Up to here products with folded DFT matrices beat XLA's FFT on a CPU.
MATRIX_TOKENS = 2048


class Fourier(nn.Module):
    """Re FFT over every axis but the first."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        signal = x.astype(jnp.float32)
        if x.ndim == 3 and x.shape[1] <= MATRIX_TOKENS:
            return _by_matrices(signal).astype(x.dtype)
        return _by_fft(signal).astype(x.dtype)


def _by_matrices(x: jax.Array) -> jax.Array:
    """(b, n, c): y = C P − S Q with P = x cos, Q = x sin over features, C and S over tokens.

    Rows t and n − t of C are equal and those of S opposite, and so are their columns: folding
    tokens first and unfolding frequencies last leaves matrices of half the side.
    """
    b, n, c = x.shape
    cos_n, sin_n = dft_matrices(n)
    cos_c, sin_c = dft_matrices(c)
    half = n // 2 + 1
    precise = jax.lax.Precision.HIGHEST

    both = jnp.matmul(x.reshape(-1, c), np.concatenate([cos_c, sin_c], 1), precision=precise)
    p, q = both.reshape(b, n, 2, c)[:, :, 0], both.reshape(b, n, 2, c)[:, :, 1]
    even, odd = _fold(p, 1), _fold(q, -1)
    u = jnp.einsum("kt,btc->bkc", cos_n[:half, :half], even, precision=precise)
    v = jnp.einsum("kt,btc->bkc", sin_n[:half, :half], odd, precision=precise)
    mirrored = (u + v)[:, 1 : n - half + 1]
    return jnp.concatenate([u - v, mirrored[:, ::-1]], axis=1)


def _fold(x: jax.Array, sign: int) -> jax.Array:
    """(b, n, c) -> (b, n//2 + 1, c): each token t plus (or minus) its mirror image n − t."""
    n = x.shape[1]
    half, twins = n // 2 + 1, (n - 1) // 2
    mirror = x[:, half:][:, ::-1]
    middle = x[:, 1 : twins + 1] + sign * mirror
    return jnp.concatenate([x[:, :1], middle, x[:, twins + 1 : half]], axis=1)


@lru_cache(maxsize=16)
def dft_matrices(n: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2π jk/n, `(n, n)` float32 each."""
    angles = 2 * np.pi / n * (np.outer(np.arange(n), np.arange(n)) % n)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _by_fft(x: jax.Array) -> jax.Array:
    """Any shape: half the spectrum of a real signal, the rest by symmetry: Re F(−k) = Re F(k)."""
    axes = tuple(range(1, x.ndim))
    c = x.shape[-1]
    y = jnp.fft.rfftn(x, axes=axes).real
    rest = y[..., 1 : c - c // 2]
    for axis in axes[:-1]:
        rest = jnp.roll(jnp.flip(rest, axis), 1, axis)
    return jnp.concatenate([y, rest[..., ::-1]], axis=-1)
