"""Softmax attention by cuDNN's fused kernel, where there is one: NVIDIA GPUs, half precision.

Dao et al. 2022 (FlashAttention), arXiv:2205.14135. No n × m array in memory, in neither pass.
q (b, n, h, d), k (b, m, h or 1, d), v (b, m, h or 1, d) -> (b, n, h, d)
"""

import jax
import jax.numpy as jnp
from jax.extend.backend import get_backend

IMPLEMENTATION = "cudnn"
HALF = (jnp.bfloat16, jnp.float16)
WIDEST = 128  # head; the kernels take multiples of 8
AMPERE = 8.0  # compute capability


def flash_applies(q: jax.Array, k: jax.Array, v: jax.Array) -> bool:
    """Whether the kernel takes these arrays, on the device that JAX computes on."""
    d = q.shape[-1]
    fits = d <= WIDEST and d % 8 == 0 and v.shape == k.shape
    return fits and all(x.dtype in HALF for x in (q, k, v)) and _has_kernel()


def _has_kernel():
    """Whether that is an NVIDIA GPU from Ampere on."""
    backend = get_backend()
    if backend.platform != "gpu" or "cuda" not in backend.platform_version:
        return False
    return float(jax.local_devices()[0].compute_capability) >= AMPERE


def flash_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q kᵀ) v with q scaled before; sums in float32, the result in v's dtype.

    Reverse mode only, no `jax.jvp`.
    """
    n = q.shape[1]
    lengths = {}
    if n % 2 or k.shape[1] % 2:  # its derivative takes even lengths alone
        lengths["query_seq_lengths"] = _lengths(q)
        lengths["key_value_seq_lengths"] = _lengths(k)
        q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    out = jax.nn.dot_product_attention(q, k, v, scale=1.0, implementation=IMPLEMENTATION, **lengths)
    return out[:, :n]


def _lengths(x):
    return jnp.full(x.shape[0], x.shape[1], jnp.int32)
