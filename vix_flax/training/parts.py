"""A batch in parts; on a CPU as many as keep what a backward pass needs in its caches.

Of 32 images at 1,025 tokens a training step keeps one or two GiB between its two passes. A CPU then
waits for memory, and for the pages that it must be given anew at every step: image by image on each
core the same step takes half to three quarters of the time (`benchmarks/`). GPUs and TPUs hide
both, and are best left to see the whole batch.

Small parts are good for caches, but the products of a part are best of some hundred tokens: of one
image of 65, with which a part of CaiT's batch would be smallest, they take a third more time.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from vix_flax.training.mesh import AXES

KEPT_BYTES = {"cpu": 10 * 2**20}  # of a part, on all devices together; elsewhere: no limit
PAIRS_BYTES = 40 * 2**20  # of a part of two images on each device: below, one would be too few
SMALL_BYTES = 2**18  # of an array that meets those of other devices faster in company


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
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(kept))
    possible = [n for n in range(least, images + 1, least) if images % (n * devices) == 0]
    pairs = [n for n in possible if images >= 2 * n * devices and size <= n * PAIRS_BYTES]
    small = [n for n in pairs or possible if size <= n * limit]
    return min(small, default=max(pairs or possible, default=least))


def each_image_alone(apply_fn: Callable, objective: Callable, collections: Any) -> bool:
    """Whether the loss of a batch is the mean of its parts': not where BatchNorm or the published
    quirks of a `reference` model read batch mates, nor for a module with a loss of its own.
    """
    model = getattr(apply_fn, "__self__", None)
    read_mates = "batch_stats" in collections or getattr(model, "reference", False)
    return getattr(objective, "mean_over_images", False) and not read_mates


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
        (grads, extra), metrics = jax.lax.scan(part, (zeros, extra), given)
        return (grads, jax.tree.map(lambda x: x.mean(axis=0), metrics)), extra

    return gradient


def many_copies(mesh: Mesh | None) -> bool:
    """Whether there are several devices, each with all of the parameters."""
    return mesh is not None and mesh.size > 1 and mesh.shape["fsdp"] == 1


def on_each_device(gradient: Callable, mesh: Mesh) -> Callable:
    """What `gradient_in_parts` returned, for a batch of which each device works through its own.

    Means over the devices are taken once, at the end. XLA by itself takes them of every part, and
    has each device wait for the slowest every time (measured on two cores: a training step of ViN
    takes a sixth longer). Each device draws dropout of its own.
    """

    def alone(params, extra, images, labels, key, context):
        key = jax.random.fold_in(key, jax.lax.axis_index(AXES))
        (grads, metrics), extra = gradient(params, extra, images, labels, key, context)
        return (mean_over_devices(grads), jax.lax.pmean(metrics, AXES)), extra

    whole, cut = PartitionSpec(), PartitionSpec(AXES)
    given = (whole, whole, cut, cut, whole, whole)
    return jax.shard_map(alone, mesh=mesh, in_specs=given, out_specs=whole, check_vma=False)


def mean_over_devices(grads: dict) -> dict:
    """Means over all devices, inside `shard_map`; small arrays of a module, such as a block, go as
    one. A meeting takes 60 µs on two CPU devices, and those of a small ViT's 56 gradients 3 ms.

    Modules go one by one. Only so do those that are equal lie equally in what they share, and an
    optimizer's kernels for one serve all: of one array for all, compiling took half as long again.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(grads)
    means, small = {}, defaultdict(list)  # small: by module
    for i, (path, x) in enumerate(leaves):
        if x.size * x.dtype.itemsize <= SMALL_BYTES:
            small[path[0]].append(i)
        else:
            means[i] = jax.lax.pmean(x, AXES)
    for places in small.values():
        joined, apart = ravel_pytree([leaves[i][1] for i in places])
        means |= zip(places, apart(jax.lax.pmean(joined, AXES)), strict=True)
    return structure.unflatten(means[i] for i in range(len(leaves)))
