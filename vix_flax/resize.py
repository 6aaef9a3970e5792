"""Trained positions for another image size: whatever belongs to a map of tokens is resampled.

Learned positions as in ViT (arXiv:2010.11929, §3.2), LeViT's biases for offsets, Linformer's
projections along the tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from vix_flax.models.image import example_image

TOKEN_AXIS = {"pos_embedding": 1, "proj_k": 0, "proj_v": 0, "table": 0}
Grid = tuple[int, int]


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
    if before.keys() != after.keys():
        odd = "/".join(sorted(before.keys() ^ after.keys())[0])
        raise ValueError(f"the models differ in more than the image size: one has no {odd}")
    grids = list(zip(model_from.grids, model_to.grids, strict=True))
    return traverse_util.unflatten_dict(
        {
            path: leaf if leaf.shape == after[path] else _resized(path, leaf, after[path], grids)
            for path, leaf in held.items()
        }
    )


def _shapes(model: nn.Module) -> dict[tuple[str, ...], tuple[int, ...]]:
    abstract = jax.eval_shape(model.init, jax.random.key(0), example_image(model))
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(abstract).items()}


def _resized(path, leaf, shape, grids: list[tuple[Grid, Grid]]) -> jax.Array:
    axis = TOKEN_AXIS.get(path[-1])
    fits = axis is not None and leaf.ndim == len(shape)
    if not fits or _without(leaf.shape, axis) != _without(shape, axis):
        raise ValueError(
            f"{'/'.join(path)} is {leaf.shape} in one model and {shape} in the other, and cannot "
            "be resampled: it belongs to no map of tokens"
        )
    old, new, first = _grids_of(leaf.shape[axis], shape[axis], grids, path)
    rows = jnp.moveaxis(leaf, axis, 0)
    kept, patches = rows[:first], rows[first:]
    features = patches.shape[1:]
    as_map = patches.reshape(*old, -1)
    if path[-1] == "table":
        as_map = _resample_offsets(as_map, new)
    else:
        as_map = jax.image.resize(as_map, (*new, as_map.shape[-1]), "bicubic")
    if path[-1].startswith("proj_"):
        as_map = as_map * (old[0] * old[1] / (new[0] * new[1]))
    rows = jnp.concatenate([kept, as_map.reshape(-1, *features).astype(leaf.dtype)])
    return jnp.moveaxis(rows, 0, axis)


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _grids_of(old: int, new: int, grids, path: Any) -> tuple[Grid, Grid, int]:
    """The maps that `old` and `new` positions belong to, and how many class tokens stand before."""
    for before, after in grids:
        first = old - before[0] * before[1]
        if first in (0, 1) and new - after[0] * after[1] == first:
            return before, after, first
    raise ValueError(f"{'/'.join(path)}: {old} and {new} positions are no maps of these models")


def _resample_offsets(table: jax.Array, grid: Grid) -> jax.Array:
    """(rows, columns, heads): offset 0 stays offset 0, the largest offset the largest."""
    old = jnp.array(table.shape[:2])
    scale = (jnp.array(grid) - 1) / jnp.maximum(old - 1, 1)
    scale = jnp.where(scale == 0, 1.0, scale)
    shape = (*grid, table.shape[-1])
    if 1 in table.shape[:2]:  # nothing to interpolate along a side of one offset
        table = jnp.broadcast_to(
            table, tuple(g if s == 1 else s for s, g in zip(table.shape, shape, strict=True))
        )
        scale = jnp.where(old == 1, 1.0, scale)
    return jax.image.scale_and_translate(
        table, shape, (0, 1), scale, 0.5 - 0.5 * scale, "cubic", antialias=False
    )
