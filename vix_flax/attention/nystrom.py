"""Nyström attention: all tokens meet each other through a few averaged tokens, the landmarks.

Xiong et al. 2021, arXiv:2102.03902. Cost O((n + m)·l·d + l³) for l landmarks.
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.attention.softmax import attention_weights
from vix_flax.attention.tiled import tiled_attention
from vix_flax.checks import require_positive_ints
from vix_flax.layers.dense import fan_in_uniform

# Images differ from their batch mates by less than a bfloat16 matrix product would make them.
PRECISE = jax.lax.Precision.HIGHEST


class Nystrom(nn.Module):
    """softmax(q k̃ᵀ) pinv(softmax(q̃ k̃ᵀ)) softmax(q̃ kᵀ) v, plus a convolution of v along the tokens.

    Landmarks q̃, k̃ are the means of `num_landmarks` consecutive segments of near-equal length
    (as many landmarks as tokens, where there are fewer tokens; a single query therefore attends
    exactly). The convolution is that of self-attention: there is none, and no parameter for it,
    where queries and keys differ in number.

    Two published quirks are off by default. `zero_pad` puts zeros in front until the token count is
    a multiple of the landmarks; they take part in the softmax and in the means. `reference=True`
    implies it and also scales the pseudo-inverse's start by maxima over the whole batch, so that an
    image's result depends on its batch mates.
    """

    num_landmarks: int = 64
    pinv_iterations: int = 6
    residual_conv_kernel: int = 33  # taps, odd; 0 leaves the convolution out
    zero_pad: bool = False
    reference: bool = False
    dtype: Any = None

    def __post_init__(self):
        require_positive_ints(self, "num_landmarks", "pinv_iterations")
        taps = self.residual_conv_kernel
        if type(taps) is not int or taps < 0 or (taps and taps % 2 == 0):
            raise ValueError(f"residual_conv_kernel={taps!r} must be odd, or 0 for no convolution")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, q: jax.Array, k: jax.Array, v: jax.Array, *, train: bool = False
    ) -> jax.Array:
        n, h, d = q.shape[1:]
        taps = self.residual_conv_kernel if k.shape[1] == n else 0
        if taps:
            # (taps, h): one filter a head, shared by its channels, as torch's default draws it.
            kernel = self.param("residual_conv", fan_in_uniform(taps), (taps, h))
        k, v = (jnp.broadcast_to(x, (*x.shape[:2], h, x.shape[-1])) for x in (k, v))
        q = q * d**-0.5

        if self.zero_pad or self.reference:
            q, k, v = (_pad_front(x, self.num_landmarks) for x in (q, k, v))
        # A1 (Z (A3 v)): never an n × l product with Z. Both ends are softmax attention themselves,
        # whose derivative keeps no weights.
        q_land, k_land, inverse = self._landmarks(q, k)
        summary = tiled_attention(q_land, k, v).swapaxes(1, 2).astype(jnp.float32)
        summary = jnp.matmul(inverse, summary, precision=PRECISE).swapaxes(1, 2)
        out = tiled_attention(q, k_land, summary.astype(v.dtype))
        if taps:
            out = out + convolve_tokens(v, kernel.astype(v.dtype))
        return out[:, -n:]

    def factors(self, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        """softmax(q k̃ᵀ) pinv(…) `(b, h, n, l)` and softmax(q̃ kᵀ) `(b, h, l, m)`: the convolution is
        not in them."""
        n, h, d = q.shape[1:]
        m = k.shape[1]
        k = jnp.broadcast_to(k, (*k.shape[:2], h, d))
        q = q * d**-0.5
        if self.zero_pad or self.reference:
            q, k = (_pad_front(x, self.num_landmarks) for x in (q, k))
        q_land, k_land, inverse = self._landmarks(q, k)
        left = jnp.matmul(attention_weights(q, k_land), inverse, precision=PRECISE)
        return left[:, :, -n:], attention_weights(q_land, k)[..., -m:]

    def _landmarks(self, q, k):
        """Landmarks of queries and of keys, and the pseudo-inverse of what is between them."""
        landmarks = min(self.num_landmarks, q.shape[1], k.shape[1])
        q_land, k_land = segment_means(q, landmarks), segment_means(k, landmarks)
        between = attention_weights(q_land, k_land)
        inverse = pseudo_inverse(between, self.pinv_iterations, per_matrix=not self.reference)
        return q_land, k_land, inverse


def segment_means(x: jax.Array, segments: int) -> jax.Array:
    """Means of consecutive segments, `(b, n, h, d) -> (b, segments, h, d)`, in float32, x's dtype.

    The first n mod `segments` of them are one token longer than the others.
    """
    b, n, h, d = x.shape
    short, longer = divmod(n, segments)
    cut = longer * (short + 1)

    def means(part, count):
        return part.reshape(b, count, -1, h, d).mean(axis=2, dtype=jnp.float32)

    head = [means(x[:, :cut], longer)] if longer else []
    return jnp.concatenate([*head, means(x[:, cut:], segments - longer)], axis=1).astype(x.dtype)


@partial(jax.jit, static_argnames=("iterations", "per_matrix"))  # traced once for all layers
def pseudo_inverse(x: jax.Array, iterations: int, per_matrix: bool = True) -> jax.Array:
    """The Moore–Penrose inverse of float32 matrices `(b, h, l, l)` by Newton–Schulz steps.

    Razavi et al. 2014: z ← ¼ z (13 − xz (15 − xz (7 − xz))), from xᵀ over the product of its
    largest absolute row and column sums. Those are each matrix's own, or with
    `per_matrix=False` (published) the largest of all batch and heads.
    """
    axes = (-1,) if per_matrix else None
    rows = jnp.abs(x).sum(axis=-1).max(axis=axes, keepdims=True)
    columns = jnp.abs(x).sum(axis=-2).max(axis=axes, keepdims=True)
    return _newton_schulz(x, x.swapaxes(-1, -2) / (rows * columns)[..., None], iterations)


_matmul = partial(jnp.matmul, precision=PRECISE)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _newton_schulz(x, z, iterations):
    # A loop: unrolled, no step is faster, and the first one of a process is 0.3 s later.
    return jax.lax.scan(lambda z, _: (_step(x, z)[0], None), z, length=iterations)[0]


def _step(x, z):
    """The next z, from y = xz and the polynomial p(y) that z is multiplied by."""
    identity = jnp.eye(x.shape[-1], dtype=x.dtype)
    y = _matmul(x, z)
    inner = 15 * identity - _matmul(y, 7 * identity - y)
    inner = 13 * identity - _matmul(y, inner)
    return 0.25 * _matmul(z, inner), (z, y, inner)


def _forward(x, z, iterations):
    z, steps = jax.lax.scan(lambda z, _: _step(x, z), z, length=iterations)
    return z, (x, steps)


def _backward(iterations, saved, g):
    """As many products as XLA's own derivative takes, of three matrices a step instead of seven.

    Gradients are transposed all the way (`to_z` is that of zᵀ): no product needs a transpose,
    which XLA's CPU makes 1.3 times as slow.
    """
    x, steps = saved

    def step_back(carried, kept):
        (to_x, to_z), (z, y, inner) = carried, kept
        to_inner = 0.25 * _matmul(to_z, z)
        # Of p(y) = 13 - 15y + 7y² - y³.
        left = _matmul(y, to_inner)
        rest = 7 * to_inner - left
        to_y = _matmul(rest - _matmul(to_inner, y), y) + _matmul(y, rest) - 15 * to_inner
        to_z = 0.25 * _matmul(inner, to_z) + _matmul(to_y, x)
        return (to_x + _matmul(z, to_y), to_z), None

    start = (jnp.zeros_like(x), g.swapaxes(-1, -2))
    to_x, to_z = jax.lax.scan(step_back, start, steps, reverse=True)[0]
    return to_x.swapaxes(-1, -2), to_z.swapaxes(-1, -2)


_newton_schulz.defvjp(_forward, _backward)


@partial(jax.jit, static_argnames="block")
def convolve_tokens(v: jax.Array, kernel: jax.Array, block: int = 128) -> jax.Array:
    """Correlates v `(b, n, h, e)` along tokens with each head's filter `(taps, h)`, zero-padded.

    As a product of blocks of tokens (with a halo) and one banded Toeplitz matrix a head: XLA's
    grouped convolution is 30 times slower on a CPU, and this is a plain matrix product anywhere.
    """
    b, n, h, e = v.shape
    taps = kernel.shape[0]
    halo = taps - 1
    block = max(min(block, n), halo)
    count = -(-n // block)
    band = _toeplitz(kernel.T, block, block + halo)

    front = taps // 2
    padded = jnp.pad(v, ((0, 0), (front, (count + 1) * block - n - front), (0, 0), (0, 0)))
    blocks = padded.reshape(b, count + 1, block, h, e)
    windows = jnp.concatenate([blocks[:, :-1], blocks[:, 1:, :halo]], axis=2)
    out = jnp.einsum("hij,bcjhe->bcihe", band, windows)
    return out.reshape(b, count * block, h, e)[:, :n]


def _toeplitz(filters, rows, columns):
    """(h, taps) -> (h, rows, columns) with filter t at [i, i + t]: a tiled row, one longer than a
    column of the result, slips by one place a line."""
    h, taps = filters.shape
    line = jnp.pad(filters, ((0, 0), (0, columns + 1 - taps)))
    return jnp.tile(line, (1, rows))[:, : rows * columns].reshape(h, rows, columns)


def _pad_front(x, multiple):
    return jnp.pad(x, ((0, 0), (-x.shape[1] % multiple, 0), (0, 0), (0, 0)))
