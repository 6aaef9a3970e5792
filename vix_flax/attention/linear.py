"""Linear attention: the kernel φ(q)·φ(k) with φ = elu + 1 instead of the softmax.

Katharopoulos et al. 2020, arXiv:2006.16236. Cost O((n + m)·d·e).
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn


class Linear(nn.Module):
    """φ(q) (φ(k)ᵀ v) / (φ(q) · Σ φ(k) + ε), non-causal; queries are not scaled."""

    epsilon: float = 1e-6
    dtype: Any = None

    rows_are_independent: ClassVar[bool] = True

    @nn.compact
    def __call__(
        self, q: jax.Array, k: jax.Array, v: jax.Array, *, train: bool = False
    ) -> jax.Array:
        return kernel_attention(_positive(q), _positive(k), v, self.epsilon)

    def factors(self, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        """φ(q) over its normaliser `(b, h, n, d)` and φ(k)ᵀ `(b, h, d, m)`."""
        return kernel_factors(_positive(q), _positive(k), self.epsilon)


def _positive(x: jax.Array) -> jax.Array:
    return nn.elu(x.astype(jnp.float32)) + 1


def kernel_attention(q: jax.Array, k: jax.Array, v: jax.Array, epsilon: float = 0.0) -> jax.Array:
    """q (kᵀ v) / (q · Σk + ε) from positive features.

    q (b, n, h, r) and k (b, m, h or 1, r) float32, v (b, m, h or 1, e) -> (b, n, h, e) in v's
    dtype. The sums over tokens are float32.
    """
    h = q.shape[2]
    k, v = (jnp.broadcast_to(x, (*x.shape[:2], h, x.shape[-1])) for x in (k, v))
    context = jnp.einsum("bmhr,bmhe->bhre", k, v.astype(jnp.float32))
    normaliser = jnp.einsum("bnhr,bhr->bnh", q, k.sum(axis=1)) + epsilon
    out = jnp.einsum("bnhr,bhre->bnhe", q, context)
    return (out / normaliser[..., None]).astype(v.dtype)


def kernel_factors(q: jax.Array, k: jax.Array, epsilon: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """The two matrices whose product `kernel_attention` applies: q/(q·Σk + ε), `(b, h, n, r)`, and
    kᵀ, `(b, h, r, m)`."""
    k = jnp.broadcast_to(k, (*k.shape[:2], q.shape[2], k.shape[-1]))
    normaliser = jnp.einsum("bnhr,bhr->bnh", q, k.sum(axis=1)) + epsilon
    return (q / normaliser[..., None]).swapaxes(1, 2), k.transpose(0, 2, 3, 1)
