"""Attention maps of any model: what every token takes from every other, for linear attention, too.

All attention is linear in its values, so out = M v with a matrix M `(n, m)` for each image and
head. M is had by applying the core to the identity, and one row of it by the transposed map: no
core needs to know, and nothing is computed unless asked for here.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vix_flax.mixers import Fourier, WindowAttention
from vix_flax.mixers.fourier import dft_matrices
from vix_flax.models.x_encoder import CarriedAttention

KINDS = ("full", "cls", "factors")


def attention_maps(
    model: nn.Module,
    variables: dict,
    img: jax.Array,
    layers: Sequence[int] | None = None,
    kind: str = "full",
    query: int = 0,
) -> Any:
    """What each layer's attention does to its values, in evaluation, in the order layers run.

    Args:
        model: any that attends (or mixes by Fourier transform).
        variables: of the model.
        img: `(b, H, W, C)`.
        layers: which, counted from 0, or from -1 backwards; None: all. Tokens-to-token stages
            belong to the embedding and are not counted.
        kind: "full" gives `(b, layers, h, n, m)` float32: softmax weights, or the matrix that a
            linear attention amounts to, convolution included. "cls" gives the row of one query,
            `(b, layers, h, m)`, in O(n) memory where the core allows. "factors" gives a tuple of
            pairs `(b, h, n, r), (b, h, r, m)`, one a layer, for Nyström (without its
            convolution), Performer, linear and Linformer.
        query: the row that "cls" gives; the class token is the first, if there is one.

    Returns:
        One array, or a tuple of one array `(b, h, …)` a layer where layers differ in size. Windowed
        attention gives maps over all positions. A Fourier mixer has two "heads", cos and −sin:
        they act on the cosine and the sine transform of the features, and are added.

    Raises:
        ValueError: the model has no attention, there is no such layer, or no factors.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} must be one of {', '.join(KINDS)}")
    if model.remat:
        model = model.clone(remat=False)
    count = len(jax.eval_shape(partial(_collect, model, None, "count", query), variables, img))
    if not count:
        raise ValueError(f"{type(model).__name__} has no attention maps: nothing in it attends")
    wanted = range(count) if layers is None else layers
    if not all(-count <= layer < count for layer in wanted):
        raise ValueError(f"layers={list(wanted)}: there are {count}, from 0 to {count - 1}")
    wanted = tuple(layer % count for layer in wanted)
    distinct = tuple(sorted(set(wanted)))
    found = _maps(model, distinct, kind, query, variables, img)
    maps = tuple(found[distinct.index(layer)] for layer in wanted)
    if kind == "factors" or len({m.shape for m in maps}) > 1:
        return maps
    return jnp.stack(maps, axis=1)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _maps(model, wanted, kind, query, variables, img):
    return _collect(model, wanted, kind, query, variables, img)


def _collect(model, wanted, kind, query, variables, img) -> list:
    """The maps of the wanted layers, in the order they run; kind "count": something of each."""
    found, seen, window = [], 0, None

    def record(call, args, kwargs, context):
        nonlocal seen, window
        module = context.module
        if context.method_name != "__call__" or "embedding" in module.path:
            return call(*args, **kwargs)
        if isinstance(module, WindowAttention):
            window = module.positions(*args[0].shape[1:3])
            out = call(*args, **kwargs)
            window = None
            return out
        out = call(*args, **kwargs)
        maps = None
        if module.name == "core":
            core, held = module.clone(parent=None), module.variables
            maps = partial(_of_core, core, held, args, kwargs, window=window)
        elif isinstance(module, Fourier):
            maps = partial(_of_fourier, args[0].shape)
        elif isinstance(module, CarriedAttention):
            maps = partial(_of_weights, nn.softmax(out[1]))
        if maps is not None:
            if kind == "count" or seen in wanted:
                found.append(maps)
            seen += 1
        return out

    with nn.intercept_methods(record):
        model.apply(variables, img)
    if kind == "count":
        return [jnp.zeros(())] * len(found)
    return [maps(kind=kind, query=query) for maps in found]


def _of_core(core, held, args, kwargs, window, kind, query):
    (q, k, v), kwargs = args, {**kwargs, "train": False}
    if kind == "factors":
        if not hasattr(core, "factors"):
            raise ValueError(
                f"{type(core).__name__} attention has no low-rank factors: use kind='full'"
            )
        return core.apply(held, q, k, method="factors")

    def apply(q, v, **changed):
        return core.apply(held, q, k, v, **{**kwargs, **changed})

    m, heads = k.shape[1], v.shape[2]
    if kind == "full":
        identity = jnp.broadcast_to(jnp.eye(m)[:, None], (len(k), m, heads, m))
        return _over_all(apply(q, identity).swapaxes(1, 2), window)
    where = query
    if window is not None:
        where = int(np.argwhere(window == query)[0, 1])
    changed = {}
    if getattr(core, "rows_are_independent", False):
        q = q[:, where : where + 1]
        if kwargs.get("bias") is not None:
            changed["bias"] = kwargs["bias"][..., where : where + 1, :]
        where = 0

    def row_times(v):
        return apply(q, v, **changed)[:, where, :, 0]

    # The row of each head is the transposed map's answer to asking for that head alone.
    _, transposed = jax.vjp(row_times, jnp.zeros((len(k), m, heads, 1)))
    h = q.shape[2]
    asked = jnp.broadcast_to(jnp.eye(h)[:, None], (h, len(k), h))
    rows = jax.vmap(lambda ask: transposed(ask)[0][..., 0])(asked)  # (h, b, m, heads)
    rows = rows[..., 0] if heads == 1 else jnp.einsum("hbmh->hbm", rows)
    return _row_over_all(rows.swapaxes(0, 1), window, query)


def _of_fourier(shape, kind, query):
    """cos and −sin of the transform over all positions, `(b, 2, n, n)`."""
    if kind == "factors":
        raise ValueError("a Fourier transform has no low-rank factors: use kind='full'")
    cos, sin = np.ones((1, 1)), np.zeros((1, 1))
    for side in shape[1:-1]:
        c, s = dft_matrices(side)
        cos, sin = np.kron(cos, c) - np.kron(sin, s), np.kron(sin, c) + np.kron(cos, s)
    both = jnp.asarray(np.stack([cos, -sin]), jnp.float32)
    both = both if kind == "full" else both[:, query]
    return jnp.broadcast_to(both, (shape[0], *both.shape))


def _of_weights(weights, kind, query):
    if kind == "factors":
        raise ValueError("attention with carried scores has no low-rank factors: use kind='full'")
    return weights if kind == "full" else weights[:, :, query]


def _over_all(maps, window):
    """Maps within windows, `(b · windows, h, w², w²)`, as maps over all positions."""
    if window is None:
        return maps
    n = window.size
    maps = maps.reshape(-1, len(window), *maps.shape[1:]).swapaxes(1, 2)
    empty = jnp.zeros((*maps.shape[:2], n, n))
    return empty.at[:, :, window[:, :, None], window[:, None, :]].set(maps)


def _row_over_all(rows, window, query):
    """`(b · windows, h, w²)` -> `(b, h, n)`: of the window that the query is in."""
    if window is None:
        return rows
    own = int(np.argwhere(window == query)[0, 0])
    rows = rows.reshape(-1, len(window), *rows.shape[1:])[:, own]
    return jnp.zeros((*rows.shape[:2], window.size)).at[..., window[own]].set(rows)


def attention_rollout(maps: jax.Array) -> jax.Array:
    """What each token took of each through all layers, `(b, layers, h, n, n) -> (b, n, n)`.

    Abnar & Zuidema 2020, arXiv:2005.00928: heads averaged, the residual counted as an identity of
    equal weight, rows made to sum to 1, layers multiplied. Negative entries, which linear attention
    has, count as none.

    Raises:
        ValueError: layers differ in size, or are not square.
    """
    if not hasattr(maps, "ndim") or maps.ndim != 5 or maps.shape[-1] != maps.shape[-2]:
        raise ValueError("rollout needs square maps of one size, (b, layers, h, n, n)")
    flow = jnp.maximum(maps.mean(axis=2), 0)
    flow = flow / jnp.maximum(flow.sum(axis=-1, keepdims=True), 1e-9)
    flow = 0.5 * (flow + jnp.eye(maps.shape[-1]))
    out = flow[:, 0]
    for layer in range(1, flow.shape[1]):
        out = flow[:, layer] @ out
    return out


def over_image(model: nn.Module, maps: jax.Array, image_size: Sequence[int]) -> jax.Array:
    """Maps as pictures: where the class token takes from or, without one, what all tokens do.

    Args:
        model: whose maps they are.
        maps: `(…, n, m)`, of one layer, of all, or their rollout; `(…, 1, m)` is one query's.
        image_size: (height, width) in pixels.

    Returns:
        `(…, rows, columns)`: what is taken from each place of the map that the m keys are.

    Raises:
        ValueError: the keys are no map of the image, with a class token before it or without.
    """
    one_query = getattr(model, "class_token", False) or maps.shape[-2] == 1
    taken = maps[..., 0, :] if one_query else maps.mean(axis=-2)
    m, (height, width) = taken.shape[-1], image_size
    for extra in (0, 1):  # a class token
        rows = max(1, round(((m - extra) * height / width) ** 0.5))
        in_proportion = (rows, (m - extra) // rows)
        for rows, columns in (*model.grids, in_proportion):
            if rows * columns + extra == m:
                return taken[..., extra:].reshape(*taken.shape[:-1], rows, columns)
    raise ValueError(f"{type(model).__name__}: {m} keys are no map of {height} × {width} pixels")
