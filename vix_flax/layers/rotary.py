"""Rotary position embedding (RoPE, arXiv:2104.09864): queries and keys turned by their position.

Pairs of neighbouring features (2i, 2i+1) turn by the angle position · 10000^(-2i/d). Two layouts:
`"raster"`, the published form, counts tokens row by row with the class token first; `"axial"` gives
half of the features to the row and half to the column, and does not turn the class token.
"""

import jax
import jax.numpy as jnp
import numpy as np


def check_rotary_width(layout: str, dim_head: int) -> None:
    """Raises ValueError if `dim_head` features cannot be paired for this layout."""
    factor = {"raster": 2, "axial": 4}[layout]
    if dim_head % factor:
        raise ValueError(
            f"dim_head={dim_head} does not work with {layout} rotary positions: "
            f"it must be a multiple of {factor}"
        )


def rotary_angles(
    layout: str, tokens: int, dim_head: int, grid: tuple[int, int] | None = None
) -> np.ndarray:
    """Angles `(tokens, dim_head // 2)` in radians.

    Args:
        layout: "raster" or "axial".
        tokens: length of the sequence; for "axial", tokens beyond `grid` (class tokens) stand in
            front and are not turned.
        dim_head: features of a head; even for "raster", a multiple of 4 for "axial".
        grid: (rows, columns) of the map, needed by "axial" alone.
    """
    check_rotary_width(layout, dim_head)
    if layout == "raster":
        return _angles(np.arange(tokens), dim_head)
    if grid is None or grid[0] * grid[1] > tokens:
        raise ValueError(f"axial rotary positions need the map's grid; got {grid} for {tokens}")
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    half = dim_head // 2
    angles = np.concatenate([_angles(rows, half), _angles(columns, half)], axis=1)
    return np.pad(angles, ((tokens - len(angles), 0), (0, 0)))


def _angles(position: np.ndarray, features: int) -> np.ndarray:
    return np.outer(position, 10000.0 ** (-np.arange(0, features, 2) / features))


def rotate(x: jax.Array, angles: np.ndarray) -> jax.Array:
    """Turns the feature pairs of `x (b, n, h, d)` by `angles (n, d/2)`; dtype kept."""
    cos, sin = (f(angles)[:, None, :].astype(np.float32) for f in (np.cos, np.sin))
    return _turn(x, cos, sin)


@jax.jit  # traced once for all layers
def _turn(x, cos, sin):
    even, odd = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
    turned = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
