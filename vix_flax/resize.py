"""Trained positions for another image size: whatever belongs to a map of tokens is resampled.

Learned positions as in ViT (arXiv:2010.11929, §3.2), LeViT's biases for offsets, Linformer's
projections along the tokens.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from vix_flax.layers import field_names
from vix_flax.models.image import example_image

TOKEN_AXIS = {"pos_embedding": 1, "proj_k": 0, "proj_v": 0, "table": 0}


def resize_positions(variables: dict, model_from: nn.Module, model_to: nn.Module) -> dict:
    """Variables of `model_from` as variables of `model_to`, the same model for another image size.

    Positions are resampled bicubically from any rectangular grid to any other; the class token's
    are kept. Biases for offsets keep offset 0 and the largest in place. Linformer's projections
    are scaled, too, so that sums over the tokens stay the same. All else is passed on untouched.

    Raises:
        ValueError: the variables are not `model_from`'s, or the models differ in more than the
            sizes of their maps.
    """
    held = traverse_util.flatten_dict(variables)
    before, after = (_shapes(model) for model in (model_from, model_to))
    for path, leaf in held.items():
        if before.get(path) != leaf.shape:
            raise ValueError(
                f"{'/'.join(path)} {leaf.shape} is no variable of model_from, which has "
                f"{before.get(path, 'nothing of that name')}"
            )
    differ = [name for name in _telling(model_from) if name in _telling(model_to)
              and getattr(model_from, name) != getattr(model_to, name)]  # fmt: skip
    if before.keys() != after.keys() or differ:
        odd = sorted(before.keys() ^ after.keys())
        what = f"one has no {'/'.join(odd[0])}" if odd else ""
        if differ:
            values = (repr(getattr(model, differ[0])) for model in (model_from, model_to))
            what = f"{differ[0]} is {' and '.join(values)}"
        raise ValueError(f"the models differ in more than the image size: {what}")
    resized = {
        path: _resized(path, leaf, after[path], model_from, model_to) for path, leaf in held.items()
    }
    return traverse_util.unflatten_dict(resized)


def _telling(model: nn.Module) -> list[str]:
    """Fields that two models must share; dropout rates, dtypes and sizes are free."""
    free = ("image_size", "dtype", "remat", "stochastic_depth")
    names = field_names(type(model))
    return [n for n in names if n not in free and "patch_size" not in n and "drop" not in n]


def _shapes(model: nn.Module) -> dict[tuple[str, ...], tuple[int, ...]]:
    abstract = jax.eval_shape(model.init, jax.random.key(0), example_image(model))
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(abstract).items()}


def _resized(path, leaf, shape, model_from: nn.Module, model_to: nn.Module) -> jax.Array:
    axis = TOKEN_AXIS.get(path[-1])
    place = None if axis is None else model_from.map_of(path)
    if place is None:
        old = new = None
    else:
        old, new = model_from.grids[place], model_to.grids[place]
    if old == new and leaf.shape == shape:
        return leaf
    first = None if old is None else leaf.shape[axis] - math.prod(old)
    fits = first in (0, 1) and leaf.ndim == len(shape) and shape[axis] - math.prod(new) == first
    if not fits or _without(leaf.shape, axis) != _without(shape, axis):
        raise ValueError(
            f"{'/'.join(path)} is {leaf.shape} in one model and {shape} in the other, and cannot "
            "be resampled: it belongs to no map of tokens"
        )
    rows = jnp.moveaxis(leaf, axis, 0)
    kept, patches = rows[:first], rows[first:]
    features = patches.shape[1:]
    as_map = patches.reshape(*old, -1)
    if path[-1] == "table":
        as_map = _resample_offsets(as_map, new)
    else:
        as_map = jax.image.resize(as_map, (*new, as_map.shape[-1]), "bicubic")
    if path[-1].startswith("proj_"):
        as_map = as_map * (math.prod(old) / math.prod(new))
    rows = jnp.concatenate([kept, as_map.reshape(-1, *features)])
    return jnp.moveaxis(rows, 0, axis)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _resample_offsets(table: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """(rows, columns, heads): offset 0 stays offset 0, the largest offset the largest."""
    old = jnp.array(table.shape[:2])
    scale = (jnp.array(grid) - 1) / jnp.maximum(old - 1, 1)
    scale = jnp.where(scale == 0, 1.0, scale)
    shape = (*grid, table.shape[-1])
    if 1 in table.shape[:2]:  # nothing to interpolate along a side of one offset
        table = jnp.broadcast_to(
            table, tuple(g if s == 1 else s for s, g in zip(table.shape, shape, strict=True))
        )
    return jax.image.scale_and_translate(
        table, shape, (0, 1), scale, 0.5 - 0.5 * scale, "cubic", antialias=False
    )
