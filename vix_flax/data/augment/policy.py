"""Policies: a few ops for each image, drawn from fourteen, as RandAugment and TrivialAugment do.

Ops, ranges and rounding are torchvision's on Pillow images: places outside an image are black,
geometry takes the nearest pixel. All images go through one warp, one look-up table and one blend
for each op drawn, and each image's draw decides what these do: a branch for each image would
compute all fourteen ops.
"""

from enum import IntEnum

import jax
import jax.numpy as jnp
import numpy as np

from vix_flax.data.augment.colour import as_dtype

Op = IntEnum(
    "Op",
    "IDENTITY SHEAR_X SHEAR_Y TRANSLATE_X TRANSLATE_Y ROTATE BRIGHTNESS COLOR CONTRAST SHARPNESS "
    "POSTERIZE SOLARIZE AUTO_CONTRAST EQUALIZE",
    start=0,
)


def rand_augment(
    images: jax.Array,
    key: jax.Array,
    num_ops: int = 2,
    magnitude: int = 9,
    num_magnitude_bins: int = 31,
) -> jax.Array:
    """`num_ops` ops one after the other, each drawn for each image, all of one strength
    (arXiv:1909.13719; torchvision's RandAugment).

    Signs are drawn, too. Grey images have no Color: there it is the identity.

    Args:
        images: `(b, h, w, c)`, 1 or 3 channels; floats are rounded to whole grey levels first,
            whatever op is drawn.
        key: of all draws.
        num_ops: ops for each image, at least 1.
        magnitude: strength, from 0 to `num_magnitude_bins` - 1.
        num_magnitude_bins: strengths there are, at least 2.

    Returns:
        Images of the same shape and dtype, in whole grey levels.

    Raises:
        ValueError: a field out of range, or neither 1 nor 3 channels.
    """
    if num_ops < 1:
        raise ValueError(f"num_ops={num_ops} must be at least 1")
    if num_magnitude_bins < 2:
        raise ValueError(f"num_magnitude_bins={num_magnitude_bins} must be at least 2")
    if magnitude not in range(num_magnitude_bins):
        raise ValueError(f"magnitude={magnitude} must be in 0 … {num_magnitude_bins - 1}")
    _, h, w, _ = images.shape
    magnitudes = rand_magnitudes(num_magnitude_bins, h, w)[:, [magnitude]]
    return in_levels(images, jax.random.split(key, num_ops), magnitudes)


def trivial_augment(images: jax.Array, key: jax.Array) -> jax.Array:
    """One op of a strength from the widest range, both drawn for each image (arXiv:2103.10158;
    torchvision's TrivialAugmentWide, 31 strengths).

    Signs are drawn, too. Grey images have no Color: there it is the identity. Shifts go to 32
    pixels whatever the size: images of 32 and less are at times wholly black.

    Args:
        images: `(b, h, w, c)`, 1 or 3 channels; floats are rounded to whole grey levels first,
            whatever op is drawn.
        key: of all draws.

    Returns:
        Images of the same shape and dtype, in whole grey levels.

    Raises:
        ValueError: neither 1 nor 3 channels.
    """
    return in_levels(images, key[None], trivial_magnitudes())


def rand_magnitudes(bins: int, h: int, w: int) -> np.ndarray:
    """RandAugment's strengths for images `(h, w)`: `(14 ops, bins, 2 signs)` float64."""
    shift = 150 / 331  # of AutoAugment's images of 331 pixels
    return magnitudes_to(0.3, (shift * w, shift * h), 30.0, 0.9, dropped_bits=4, bins=bins)


def trivial_magnitudes() -> np.ndarray:
    """TrivialAugment's strengths: `(14 ops, 31 bins, 2 signs)` float64."""
    return magnitudes_to(0.99, (32.0, 32.0), 135.0, 0.99, dropped_bits=6, bins=31)


def magnitudes_to(
    shear: float,
    shift: tuple[float, float],
    angle: float,
    change: float,
    dropped_bits: int,
    bins: int,
) -> np.ndarray:
    """Even steps from nothing to the values given: `(14 ops, bins, 2 signs)` float64.

    The second sign is minus, for ops that have one. Pixels to shift by are whole, Solarize has the
    level from which it inverts, Posterize the bits it keeps.
    """
    ends = np.zeros(len(Op))
    ends[[Op.SHEAR_X, Op.SHEAR_Y, Op.ROTATE]] = shear, shear, angle
    ends[[Op.TRANSLATE_X, Op.TRANSLATE_Y]] = shift
    ends[[Op.BRIGHTNESS, Op.COLOR, Op.CONTRAST, Op.SHARPNESS]] = change
    magnitudes = np.linspace(0, ends, bins, axis=1)[..., None] * np.array([1, -1])
    shifts = magnitudes[[Op.TRANSLATE_X, Op.TRANSLATE_Y]]
    magnitudes[[Op.TRANSLATE_X, Op.TRANSLATE_Y]] = np.trunc(shifts)
    magnitudes[Op.SOLARIZE] = np.linspace(255, 0, bins)[:, None]
    dropped = np.round(np.arange(bins) / ((bins - 1) / dropped_bits))
    magnitudes[Op.POSTERIZE] = 8 - dropped[:, None]
    return magnitudes


def in_levels(images: jax.Array, keys: jax.Array, magnitudes: np.ndarray) -> jax.Array:
    """A random op for each key on whole grey levels, then the dtype there was."""
    channels = images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"images of {channels} channels must have 1 or 3")
    levels = as_dtype(images, jnp.uint8)
    for key in keys:
        levels = apply_ops(levels, draw_ops(key, len(images), magnitudes), magnitudes)
    return levels.astype(images.dtype)


def draw_ops(key: jax.Array, b: int, magnitudes: np.ndarray) -> tuple[jax.Array, ...]:
    """Op, bin and sign of `b` images, `(b,)` int32 each: where they find their magnitude."""
    keys = jax.random.split(key, magnitudes.ndim)
    return tuple(
        jax.random.randint(key, (b,), 0, n) for key, n in zip(keys, magnitudes.shape, strict=True)
    )


def apply_ops(
    images: jax.Array, choice: tuple[jax.Array, ...], magnitudes: np.ndarray
) -> jax.Array:
    """Each image changed by its own op: `(b, h, w, c)` uint8 -> the same.

    Args:
        images: uint8.
        choice: op, bin and sign of each image, `(b,)` int32 each.
        magnitudes: `(14 ops, bins, 2 signs)`.
    """
    _, h, w, _ = images.shape
    op = choice[0]
    magnitude = jnp.asarray(magnitudes, jnp.float32)[choice]
    factor = jnp.asarray(1 + magnitudes, jnp.float32)[choice][:, None, None, None]
    images = warp(images, jnp.asarray(warp_matrices(magnitudes, h, w))[choice])
    # Not only for batches that drew none of an op: without a condition XLA computes a table's
    # entry anew for each pixel that looks it up, and the whole takes twice as long on a CPU.
    tables = jax.lax.cond(
        (op >= Op.POSTERIZE).any(), op_tables, identity_tables, images, op, magnitude
    )
    images = look_up(images, tables)
    return jax.lax.cond(
        ((op >= Op.BRIGHTNESS) & (op <= Op.SHARPNESS)).any(),
        lambda: blend(degenerate(images, op), images, factor),
        lambda: images,
    )


def warp_matrices(magnitudes: np.ndarray, h: int, w: int) -> np.ndarray:
    """From a pixel's index to the index of the pixel it shows, for images `(h, w)`.

    In float64 on the host, then rounded as Pillow does: on the device's float32 some pixels would
    come from a neighbour's place.

    Returns:
        `(*magnitudes.shape, 6)` int32, each a 2 × 3 matrix for `(x, y, 1)` in 16 + 16 bits of
        fixed point; the identity for what is no op of geometry.
    """
    matrices = np.zeros((*magnitudes.shape, 6))
    matrices[..., [0, 4]] = 1
    matrices[Op.SHEAR_X, ..., 1] = magnitudes[Op.SHEAR_X]
    matrices[Op.SHEAR_Y, ..., 3] = magnitudes[Op.SHEAR_Y]
    matrices[Op.TRANSLATE_X, ..., 2] = -magnitudes[Op.TRANSLATE_X]
    matrices[Op.TRANSLATE_Y, ..., 5] = -magnitudes[Op.TRANSLATE_Y]
    angle = np.radians(magnitudes[Op.ROTATE])
    cos, sin = np.cos(angle).round(15), np.sin(angle).round(15)
    x, y = w / 2, h / 2
    matrices[Op.ROTATE] = np.stack(
        [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y], axis=-1
    )
    matrices[..., [2, 5]] += (matrices[..., [0, 3]] + matrices[..., [1, 4]]) / 2  # pixels' middles
    return np.floor(matrices * 2**16 + 0.5).astype(np.int32)


def warp(images: jax.Array, matrices: jax.Array) -> jax.Array:
    """The nearest pixel of the place that each one's matrix `(b, 6)` says, black outside."""
    b, h, w, c = images.shape
    rows, columns = jnp.arange(h)[:, None], jnp.arange(w)
    m = matrices.T[..., None, None]
    x = (m[0] * columns + m[1] * rows + m[2]) >> 16
    y = (m[3] * columns + m[4] * rows + m[5]) >> 16
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    source = jnp.where(inside, y * w + x, 0).reshape(b, h * w)
    pixels = images.reshape(b, h * w, c).at[jnp.arange(b)[:, None], source]
    moved = pixels.get(mode="promise_in_bounds").reshape(images.shape)
    return jnp.where(inside[..., None], moved, 0)


def look_up(images: jax.Array, tables: jax.Array) -> jax.Array:
    """Each pixel of uint8 images replaced by the entry of its channel's table `(b, c, 256)`."""
    b, _, _, c = images.shape
    channel = jnp.arange(b)[:, None, None, None] * c + jnp.arange(c)
    return tables.ravel().at[channel * 256 + images].get(mode="promise_in_bounds")


def identity_tables(images: jax.Array, *_: jax.Array) -> jax.Array:
    """Every level stays what it is: `(b, c, 256)` uint8."""
    return jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint8), (len(images), images.shape[-1], 256))


def op_tables(images: jax.Array, op: jax.Array, magnitude: jax.Array) -> jax.Array:
    """What each level becomes: `(b, c, 256)` uint8, for images, ops and magnitudes of length b."""
    op, magnitude = (each[:, None, None] for each in (op, magnitude))
    _, h, w, _ = images.shape
    below = darker(images)
    levels = jnp.arange(256)
    named = {
        Op.POSTERIZE: levels & -(1 << 8 - magnitude.astype(jnp.int32)),
        Op.SOLARIZE: jnp.where(levels < magnitude, levels, 255 - levels),
        Op.AUTO_CONTRAST: autocontrast_table(below, h * w),
        Op.EQUALIZE: equalize_table(below, h * w),
    }
    chosen = jnp.select([op == name for name in named], list(named.values()), levels)
    return jnp.broadcast_to(chosen, below.shape).astype(jnp.uint8)


def darker(images: jax.Array) -> jax.Array:
    """Pixels darker than each level in each channel of uint8 images: `(b, c, 256)` int32."""
    b, _, _, c = images.shape
    channel = jnp.arange(b)[:, None, None, None] * c + jnp.arange(c)
    # On a CPU 100 times as fast as a product of one-hot levels, 20 times as a sort.
    counts = jnp.zeros(b * c * 256, jnp.int32).at[(channel * 256 + images).ravel()]
    counts = counts.add(1, mode="promise_in_bounds").reshape(b, c, 256)
    return jnp.cumsum(counts, axis=-1) - counts


def autocontrast_table(below: jax.Array, pixels: int) -> jax.Array:
    """Stretches each channel from its darkest to its brightest level: `(b, c, 256)` int32.

    Pillow computes it in floats: some entries that are whole numbers here are 1 less there.

    Args:
        below: pixels darker than each level, `(b, c, 256)`.
        pixels: of one image, h · w.
    """
    low = (below == 0).sum(axis=-1, keepdims=True) - 1
    high = (below < pixels).sum(axis=-1, keepdims=True) - 1
    levels = jnp.arange(256)
    stretched = 255 * (levels - low) // jnp.maximum(high - low, 1)
    return jnp.where(high > low, jnp.clip(stretched, 0, 255), levels)


def equalize_table(below: jax.Array, pixels: int) -> jax.Array:
    """Spreads the levels of each channel evenly, as Pillow does: `(b, c, 256)` int32.

    Args:
        below: pixels darker than each level, `(b, c, 256)`.
        pixels: of one image, h · w.
    """
    under_brightest = jnp.where(below < pixels, below, 0).max(axis=-1, keepdims=True)
    step = under_brightest // 255
    spread = (step // 2 + below) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(spread, 255), jnp.arange(256))


def degenerate(images: jax.Array, op: jax.Array) -> jax.Array:
    """What ImageEnhance mixes with each image: black, its mean, grey or smooth; else itself."""
    op = op[:, None, None, None]
    grey = grey_levels(images)
    size = grey[0].size
    mean = (2 * grey.sum(axis=(1, 2, 3), keepdims=True) + size) // (2 * size)
    named = {Op.BRIGHTNESS: 0, Op.CONTRAST: mean, Op.COLOR: grey, Op.SHARPNESS: smooth(images)}
    return jnp.select([op == name for name in named], list(named.values()), images)


def grey_levels(images: jax.Array) -> jax.Array:
    """Pillow's conversion to "L": `(b, h, w, 3 or 1)` uint8 -> `(b, h, w, 1)` int32."""
    images = images.astype(jnp.int32)
    if images.shape[-1] == 1:
        return images
    weights = jnp.array([19595, 38470, 7471])  # BT.601 in 16 bits of fixed point
    return ((images * weights).sum(axis=-1, keepdims=True) + 2**15) >> 16


def smooth(images: jax.Array) -> jax.Array:
    """Pillow's SMOOTH: a middle of 5 and eight neighbours of 1, over 13; borders untouched."""
    wide = images.astype(jnp.int16)  # 2 · 13 · 255 fits, and takes half the time of int32
    inner = wide[:, 1:-1, 1:-1]
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    square = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smoothed = (2 * (square + 4 * inner) + 13) // 26
    return images.at[:, 1:-1, 1:-1].set(smoothed.astype(images.dtype))


def blend(start: jax.Array, images: jax.Array, factor: jax.Array) -> jax.Array:
    """Pillow's blend: from `start` (0) through `images` (1) and beyond, cut to a whole level."""
    start, images = start.astype(jnp.float32), images.astype(jnp.float32)
    return jnp.clip(start + factor * (images - start), 0, 255).astype(jnp.uint8)
