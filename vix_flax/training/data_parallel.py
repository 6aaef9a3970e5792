"""Each device by itself, from its images to their gradient: how a CPU's devices share a step.

They meet once, for the means of all gradients, and once in each pass of every BatchNorm. XLA, left
to cut the step, has them meet for every array that they share: 60 µs each time on a CPU, and a wait
for the slowest. Of LeViT's 28 ms that is a half (batch 32, two cores; by hand the step takes 19).
GPUs and TPUs meet faster, and XLA gathers what can meet at once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from vix_flax.array_bytes import bytes_of
from vix_flax.training.mesh import AXES
from vix_flax.training.parts import forward, gradient_of

SMALL_BYTES = 2**18  # of an array that meets those of other devices faster in company
# What a backward pass of a model with BatchNorm keeps, on all devices together. In larger steps
# meetings take little of the time, and XLA's order holds more of what products wait for: FNet2D
# 384 MiB on each device instead of 257.
LITTLE_BYTES = 64 * 2**20


def many_copies(mesh: Mesh | None) -> bool:
    """Whether there are several devices, each with all of the parameters."""
    return mesh is not None and mesh.size > 1 and mesh.shape["fsdp"] == 1


@contextmanager
def noting_batch_norms() -> Iterator[set[tuple[str, ...]]]:
    """A set that fills with paths: of modules that are called to normalise by a batch, and say that
    inside `shard_map` they take statistics over all devices (`normalizes_over_devices`).
    """
    norms = set()

    def note(call, args, kwargs, context):
        module = context.module
        over_devices = getattr(module, "normalizes_over_devices", False)
        if over_devices and module.is_mutable_collection("batch_stats"):
            norms.add(module.path)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        yield norms


def on_each_device(gradient: Callable, mesh: Mesh) -> Callable:
    """`gradient`, as `gradient_of` returns it, of a batch that each device has some of.

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
        if bytes_of(x) <= SMALL_BYTES:
            small[path[0]].append(i)
        else:
            means[i] = jax.lax.pmean(x, AXES)
    for places in small.values():
        joined, apart = ravel_pytree([leaves[i][1] for i in places])
        means |= zip(places, apart(jax.lax.pmean(joined, AXES)), strict=True)
    return structure.unflatten(means[i] for i in range(len(leaves)))


def gradient_with_norms(loss_of: Callable, mesh: Mesh) -> Callable:
    """`gradient_of` a batch that BatchNorm reads: each CPU by itself, where little is kept and all
    norms can meet. Others, such as Flax's, would see one device's images: XLA cuts the step then.
    """

    def gradient(params, extra, *given):
        with noting_batch_norms() as norms:
            finish, kept = forward(loss_of, params, extra, *given)
        of_norms = {path[:-1] for path in flatten_dict(extra["batch_stats"])}
        if kept > LITTLE_BYTES or not of_norms <= norms:
            return finish()
        # No result of the pass above is used: XLA drops it.
        return on_each_device(gradient_of(loss_of), mesh)(params, extra, *given)

    return gradient
