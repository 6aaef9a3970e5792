"""A batch in parts; on a CPU as many as keep what a backward pass needs in its caches.

Of 32 images at 1,025 tokens a training step keeps one or two GiB between its two passes. A CPU then
waits for memory, and for the pages that it must be given anew at every step: image by image on each
core the same step takes half to three quarters of the time (`benchmarks/`). GPUs and TPUs hide
both, and are best left to see the whole batch.

Small parts are good for caches, but the products of a part are best of some hundred tokens: of one
image of 65, with which a part of CaiT's batch would be smallest, they take a third more time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vix_flax.array_bytes import bytes_of

KEPT_BYTES = {"cpu": 10 * 2**20}  # of a part, on all devices together; elsewhere: no limit
PAIRS_BYTES = 40 * 2**20  # of a part of two images on each device: below, one would be too few


def parts_in_cache(kept: Any, images: int, least: int, mesh: Mesh | None) -> int:
    """The fewest parts of a batch of which a backward pass keeps little; `least` on a GPU or TPU.

    Parts of one image on each device are left for those that keep much even so.

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
    # One device cuts each product for its threads, and needs larger ones.
    limit = KEPT_BYTES[platform] * (2 if devices == 1 else 1)
    size = sum(map(bytes_of, jax.tree.leaves(kept)))
    possible = [n for n in range(least, images + 1, least) if images % (n * devices) == 0]
    pairs = [n for n in possible if images >= 2 * n * devices and size <= n * PAIRS_BYTES]
    small = [n for n in pairs or possible if size <= n * limit]
    return min(small, default=max(pairs or possible, default=least))


def mean_of_images(apply_fn: Callable, objective: Callable) -> bool:
    """Whether the loss of a batch is the mean of its images', if what BatchNorm reads of the batch
    is given: not where the published quirks of a `reference` model read batch mates, nor for a
    module with a loss of its own.
    """
    reads_mates = getattr(getattr(apply_fn, "__self__", None), "reference", False)
    return getattr(objective, "mean_over_images", False) and not reads_mates


def each_image_alone(apply_fn: Callable, objective: Callable, collections: Any) -> bool:
    """Whether the loss of a batch is the mean of its parts': without BatchNorm, too."""
    return "batch_stats" not in collections and mean_of_images(apply_fn, objective)


def gradient_in_parts(loss_of: Callable, parts: int) -> Callable:
    """A function of a batch that works through it in `parts`, one after the other.

    Args:
        loss_of: (params, extra, images, labels, key, context) → (loss, (metrics, updates)), the
            updates being those of `extra`.
        parts: a divisor of the number of images.

    Returns:
        Of the same arguments, ((gradient, metrics with `loss`), extra): means over the parts, and
        collections as the last part leaves them.
    """
    forward_backward = jax.value_and_grad(loss_of, has_aux=True)

    def gradient(params, extra, images, labels, key, context):
        def part(carried, given):
            grads, extra = carried
            (loss, (metrics, updates)), more = forward_backward(params, extra, *given, context)
            grads = jax.tree.map(lambda a, b: a + b / parts, grads, more)
            return (grads, {**extra, **updates}), {"loss": loss, **metrics}

        # Every n-th image makes a part: of a batch that is cut, each device keeps its own.
        parted = lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)
        given = (parted(images), parted(labels), jax.random.split(key, parts))
        zeros = jax.tree.map(jnp.zeros_like, params)
        (grads, extra), metrics = jax.lax.scan(part, (zeros, extra), given, unroll=parts == 1)
        return (grads, jax.tree.map(lambda x: x.mean(axis=0), metrics)), extra

    return gradient
