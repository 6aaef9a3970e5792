"""Softmax attention a tile of the scores at a time, in both passes: no n × m array in memory.

Dao et al. 2022 (FlashAttention), arXiv:2205.14135: the forward pass keeps each row's log-sum-exp,
from which the backward pass forms its weights again. A tile is what some heads (those of all images
are taken alike) and queries score against all keys, so its softmax needs no running maximum.
Cost O(n·m·(d + e)) time, O(n·(d + e)) memory beside one tile.
q (b, n, h, d), k (b, m, h or 1, d), v (b, m, h or 1, e) -> (b, n, h, e)
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange

from vix_flax.attention.flash import flash_applies, flash_attention
from vix_flax.attention.products import sum_over_tokens

# Bytes of a tile on each device: on a CPU what its second- and third-level caches hold.
TILE_BYTES = {"cpu": 2**22}
TILE_BYTES_ELSEWHERE = 2**28
# Heads share a tile only up to here: few rows are slow to multiply, but whole heads, one after the
# other, stay in a second-level cache (of 1,024 × 256 scores: a training step of CvT 5 % faster).
SHARED_BYTES = {"cpu": 2**20}


def tiled_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """softmax(q kᵀ) v with q scaled before; scores and softmax in float32, the result in v's dtype.

    By a GPU's own kernel where that applies. Reverse mode only, no `jax.jvp`.
    """
    if flash_applies(q, k, v):
        return flash_attention(q, k, v)
    b, n, h, _ = q.shape
    heads, queries = _tile(b * h, n, k.shape[1])
    return _by_tiles(q, k, v, heads, queries)


@partial(jax.jit, static_argnums=(3, 4))  # traced once for all layers
def _by_tiles(q, k, v, heads, queries):
    n, h = q.shape[1:3]
    k, v = (jnp.broadcast_to(x, (*x.shape[:2], h, x.shape[-1])) for x in (k, v))
    padded = jnp.pad(q, ((0, 0), (0, -n % queries), (0, 0), (0, 0)))
    q, k, v = (rearrange(x, "b n h d -> (b h) n d") for x in (padded, k, v))
    # Every n-th head makes a tile: of a batch cut over devices, each has its share of all tiles.
    by_tile = partial(rearrange, pattern="(g s) (c n) d -> s c g n d", g=heads)
    out = _attend(by_tile(q, n=queries), by_tile(k, c=1)[:, 0], by_tile(v, c=1)[:, 0])
    out = rearrange(out, "s c g n e -> (g s) (c n) e")
    return rearrange(out, "(b h) n e -> b n h e", h=h)[:, :n]


def head_by_head(
    attend: Callable[..., jax.Array], q: jax.Array, k: jax.Array, v: jax.Array, bytes_per_head: int
) -> jax.Array:
    """`attend(q, k, v)`, on a CPU a tile of one head of some images at a time, formed again in the
    backward pass; `bytes_per_head` are formed for each. What fits into a few tiles is done at once.
    """
    b, h = q.shape[0], q.shape[2]
    fits = images_at_once(b, h * bytes_per_head, 4 * _tile_bytes()) == b
    if fits or jax.default_backend() not in TILE_BYTES:
        return attend(q, k, v)
    images = images_at_once(b, bytes_per_head, _tile_bytes())
    by_head = partial(rearrange, pattern="(g s) n h d -> (s h) g n 1 d", g=images)
    k, v = (jnp.broadcast_to(x, (*x.shape[:2], h, x.shape[-1])) for x in (k, v))
    one_head = jax.checkpoint(lambda given: attend(*given), prevent_cse=False)
    out = jax.lax.map(one_head, (by_head(q), by_head(k), by_head(v)))
    return rearrange(out, "(s h) g n 1 e -> (g s) n h e", h=h)


def _tile(heads: int, queries: int, keys: int) -> tuple[int, int]:
    """Heads and queries of a tile: as many queries as fit, then as many heads."""
    room = _tile_bytes() // (4 * keys)  # rows
    chunks = -(-queries // max(1, min(queries, room)))
    rows = -(-queries // chunks)
    shared = SHARED_BYTES.get(jax.default_backend(), TILE_BYTES_ELSEWHERE)
    return images_at_once(heads, 4 * keys * rows, min(shared, _tile_bytes())), rows


def _tile_bytes() -> int:
    return TILE_BYTES.get(jax.default_backend(), TILE_BYTES_ELSEWHERE)


def images_at_once(batch: int, bytes_per_image: int, budget: int) -> int:
    """The largest divisor of the batch that stays within the budget of the devices, which share it
    evenly where they can; at least one image, or one for each device. Heads can be counted alike.
    """
    devices = devices_sharing(batch)
    most = max(devices, min(batch, budget * devices // bytes_per_image))
    return next(n for n in range(most, 0, -1) if batch % n == 0 and n % devices == 0)


def devices_sharing(batch: int) -> int:
    """How many devices a batch is cut over; 1 inside `shard_map`, where it is one device's own."""
    count = 1 if jax.sharding.get_abstract_mesh().manual_axes else jax.device_count()
    return count if batch % count == 0 else 1


@jax.custom_vjp
def _attend(q, k, v):
    """q (s, c, g, n, d), k (s, g, m, d), v (s, g, m, e) -> (s, c, g, n, e): s · c tiles."""
    return _forward(q, k, v)[0]


def _forward(q, k, v):
    def one_tile(q, k, v):
        scores = _scores(q, k)
        top = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = weights.sum(axis=-1, keepdims=True)
        out = jnp.einsum("gnm,gme->gne", weights.astype(v.dtype), v)
        return (out / total).astype(v.dtype), top + jnp.log(total)

    def some_heads(given):
        q, k, v = given
        return _map(lambda q: one_tile(q, k, v), q)

    out, log_total = _map(some_heads, (q, k, v))
    return out, (q, k, v, out, log_total)


def _backward(saved, g):
    def some_heads(given):
        q, k, v, out, log_total, g = given

        def one_tile(given):
            q, out, log_total, g = given
            weights = jnp.exp(_scores(q, k) - log_total)
            low = weights.astype(v.dtype)
            to_v = sum_over_tokens(low, g)
            to_weights = jnp.einsum("gne,gme->gnm", g, v, preferred_element_type=jnp.float32)
            shared = (out.astype(jnp.float32) * g).sum(axis=-1, keepdims=True)
            to_scores = (weights * (to_weights - shared)).astype(q.dtype)
            to_q = jnp.einsum("gnm,gmd->gnd", to_scores, k)
            return to_q, sum_over_tokens(to_scores, q), to_v

        given = (q, out, log_total, g)
        if len(q) == 1:
            to_q, to_k, to_v = _map(one_tile, given)
            return to_q, to_k[0], to_v[0]

        def add(sums, given):
            to_q, *more = one_tile(given)
            return [a + b for a, b in zip(sums, more, strict=True)], to_q

        zeros = [jnp.zeros(x.shape, jnp.float32) for x in (k, v)]
        (to_k, to_v), to_q = jax.lax.scan(add, zeros, given)
        return to_q, to_k.astype(k.dtype), to_v.astype(v.dtype)

    return _map(some_heads, (*saved, g))


_attend.defvjp(_forward, _backward)


def _scores(q, k):
    return jnp.einsum("gnd,gmd->gnm", q, k, preferred_element_type=jnp.float32)


def _map(function, xs):
    """`lax.map`, without a loop where there is nothing to repeat."""
    if len(jax.tree.leaves(xs)[0]) > 1:
        return jax.lax.map(function, xs)
    return jax.tree.map(lambda x: x[None], function(jax.tree.map(lambda x: x[0], xs)))
