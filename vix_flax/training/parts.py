"""How many parts of a batch a CPU works through, so that what a backward pass keeps stays in cache.

Of 32 images at 1,025 tokens a training step keeps one or two GiB between its two passes. A CPU then
waits for memory, and for the pages that it must be given anew at every step: in parts of 48 MiB the
same step takes half to three quarters of the time (`benchmarks/`). GPUs and TPUs hide both, and are
best left to see the whole batch.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

KEPT_BYTES = {"cpu": 48 * 2**20}  # of a part, on all devices together; elsewhere: no limit


def parts_in_cache(kept: Any, images: int, least: int, mesh: Mesh | None) -> int:
    """The fewest parts of a batch of which a backward pass keeps little; `least` on a GPU or TPU.

    Args:
        kept: arrays, of the whole batch: what `jax.vjp` returned, or anything with such leaves.
        images: in the batch.
        least: parts that there are anyway; their number is a multiple of it.
        mesh: whose devices must share every part.
    """
    devices = 1 if mesh is None else mesh.size
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    if platform not in KEPT_BYTES:
        return least
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(kept))
    possible = [n for n in range(least, images + 1, least) if images % (n * devices) == 0]
    small = [n for n in possible if size <= n * KEPT_BYTES[platform]]
    return min(small, default=max(possible, default=least))


def each_image_alone(apply_fn: Callable, objective: Callable, collections: Any) -> bool:
    """Whether the loss of a batch is the mean of its parts': not where BatchNorm or the published
    quirks of a `reference` model read batch mates, nor for a module with a loss of its own.
    """
    model = getattr(apply_fn, "__self__", None)
    read_mates = "batch_stats" in collections or getattr(model, "reference", False)
    return getattr(objective, "mean_over_images", False) and not read_mates
