"""Fourier mixing: the real part of the discrete Fourier transform over all positions and features.

Lee-Thorp et al. 2021 (FNet), arXiv:2105.03824. No parameters. Cost O(n c log(n c)).
(b, *space, c) -> (b, *space, c), unnormalised, always float32 inside.
"""

from functools import lru_cache
from string import ascii_lowercase

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec


class Fourier(nn.Module):
    """Re FFT over every axis but the first."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return real_fourier(x.astype(jnp.float32)).astype(x.dtype)


@jax.custom_vjp
def real_fourier(x: jax.Array) -> jax.Array:
    """Re FFT of a float32 array `(b, *space, c)` over all axes but the first, same shape.

    The map is symmetric, so it is its own derivative; reverse mode only, no `jax.jvp`.
    """
    return _of_images(x)


real_fourier.defvjp(lambda x: (real_fourier(x), None), lambda _, g: (real_fourier(g),))


@custom_vmap
def _of_images(x):
    return _transform_of(x.ndim)(x)


@_of_images.def_vmap
def _of_more_images(axis_size, batched, x):
    return _of_images(x.reshape(-1, *x.shape[2:])).reshape(x.shape), True


def _transform(x):
    """Half the spectrum of a real signal, the rest by symmetry: F(−k) = F(k)*."""
    axes = tuple(range(1, x.ndim))
    c = x.shape[-1]
    y = jnp.fft.rfftn(x, axes=axes).real
    rest = y[..., 1 : c - c // 2]
    for axis in axes[:-1]:
        rest = jnp.roll(jnp.flip(rest, axis), 1, axis)
    return jnp.concatenate([y, rest[..., ::-1]], axis=-1)


@lru_cache
def _transform_of(ndim):
    """The transform, which says that images are independent: XLA would otherwise gather a batch
    that is cut over devices, and transform all of it on each."""
    letters = " ".join(ascii_lowercase[:ndim])
    transform = custom_partitioning(_transform)

    def partition(mesh, shapes, result):
        images = NamedSharding(mesh, PartitionSpec(*shapes[0].sharding.spec[:1]))
        return mesh, _transform, images, (images,)

    transform.def_partition(
        partition,
        sharding_rule=f"{letters} -> {letters}",
        need_replication_factors=tuple(letters.split()[1:]),
    )
    return transform


@lru_cache(maxsize=16)
def dft_matrices(n: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2π jk/n, `(n, n)` float32 each: the transform as the matrix that it is."""
    angles = 2 * np.pi / n * (np.outer(np.arange(n), np.arange(n)) % n)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
