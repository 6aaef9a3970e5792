"""What a backbone accepts, checked at the door: sizes as int or (height, width), dtypes, images."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def pair(field: str, size: Any) -> tuple[int, int]:
    """An int or (height, width) as (height, width).

    Raises:
        ValueError: it is neither, or not positive; names `field`.
    """
    both = (size, size) if isinstance(size, int) else size
    if (
        not isinstance(both, tuple | list)
        or len(both) != 2
        or not all(type(side) is int and side > 0 for side in both)
    ):
        raise ValueError(f"{field}={size!r} must be a positive int or (height, width)")
    return tuple(both)


def check_image(shape: tuple[int, ...], channels: int, size: tuple[int, int] | None = None) -> None:
    """Raises ValueError unless `shape` is (b, h, w, channels), with `size` = (h, w) if given."""
    wanted = f"(b, {size[0]}, {size[1]}, {channels})" if size else f"(b, h, w, {channels})"
    if len(shape) != 4:
        hint = "; add a batch axis with img[None]" if len(shape) == 3 else ""
        raise ValueError(f"images must have shape {wanted}; got {shape}{hint}")
    if shape[-1] != channels:
        nchw = shape[1] == channels and size in (None, tuple(shape[2:]))
        hint = (
            ": this looks like NCHW; transpose to NHWC with img.transpose(0, 2, 3, 1)"
            if nchw
            else f"; or build the model with channels={shape[-1]}"
        )
        raise ValueError(f"images must have shape {wanted}; got {shape}{hint}")
    if size and tuple(shape[1:3]) != size:
        raise ValueError(
            f"images must have shape {wanted}; got {shape}: resize them, or build the model with "
            f"image_size={tuple(shape[1:3])} and carry trained variables over with "
            "vix_flax.resize_positions"
        )


def check_dtype(dtype: Any) -> None:
    """Raises ValueError unless `dtype` is None or names a floating-point type."""
    try:
        fits = dtype is None or jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"dtype={dtype!r} must be a floating-point type such as 'bfloat16'")


def example_image(model: nn.Module, batch: int = 1) -> jax.ShapeDtypeStruct:
    """An abstract batch `(batch, H, W, C)` that the model accepts (32 × 32 if it takes any)."""
    smallest = getattr(model, "smallest_image", 32)
    height, width = pair("image_size", getattr(model, "image_size", smallest))
    return jax.ShapeDtypeStruct((batch, height, width, model.channels), jnp.float32)
