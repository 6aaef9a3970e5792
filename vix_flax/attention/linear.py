"""Linear attention: the kernel φ(q)·φ(k) with φ = elu + 1 instead of the softmax.

Katharopoulos et al. 2020, arXiv:2006.16236. Cost O((n + m)·d·e).
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.attention.products import along_rows, sum_over_tokens


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
    return nn.elu(x.swapaxes(1, 2).astype(jnp.float32)) + 1


def kernel_attention(q: jax.Array, k: jax.Array, v: jax.Array, epsilon: float = 0.0) -> jax.Array:
    """q (kᵀ v) / (q · Σk + ε) from positive features, heads in front: they are many, and products
    over tokens would turn them round first.

    q (b, h, n, r) and k (b, h or 1, m, r) float32, v (b, m, h or 1, e) -> (b, n, h, e) in v's
    dtype. The sums over tokens are float32. Reverse mode only, no `jax.jvp`.
    """
    h, dtype = q.shape[1], v.dtype
    k = jnp.broadcast_to(k, (k.shape[0], h, *k.shape[2:]))
    v = jnp.broadcast_to(v, (*v.shape[:2], h, v.shape[-1])).swapaxes(1, 2).astype(jnp.float32)
    normaliser = jnp.einsum("bhnr,bhr->bhn", q, k.sum(axis=2)) + epsilon
    out = q @ sum_over_tokens(k, v) * along_rows(1 / normaliser, v.shape[-1])
    return out.swapaxes(1, 2).astype(dtype)


def kernel_factors(q: jax.Array, k: jax.Array, epsilon: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """The two matrices whose product `kernel_attention` applies: q/(q·Σk + ε), `(b, h, n, r)`, and
    kᵀ, `(b, h, r, m)`."""
    k = jnp.broadcast_to(k, (k.shape[0], q.shape[1], *k.shape[2:]))
    normaliser = jnp.einsum("bhnr,bhr->bhn", q, k.sum(axis=2)) + epsilon
    return q / normaliser[..., None], k.swapaxes(2, 3)
