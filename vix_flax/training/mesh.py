"""Where arrays lie on many devices: a mesh with the axes `data` and `fsdp`, and a rule by shape.

Every batch is cut along both axes. Parameters, and all that training keeps for each of them, are
cut along `fsdp` (arXiv:1910.02054) and gathered when they are used; XLA adds the communication.
"""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vix_flax.suggest import did_you_mean

AXES = ("data", "fsdp")
MIN_CUT = 1024  # numbers in an array that is worth cutting: gathering takes time, too


def parse_mesh(text: str) -> dict[str, int]:
    """The size of each axis: `"data=4,fsdp=2"` → `{"data": 4, "fsdp": 2}`; 1 if it is left out.

    Raises:
        ValueError: another axis, or a size that is no positive number.
    """
    sizes, seen = dict.fromkeys(AXES, 1), set()
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if axis in seen:
            raise ValueError(f"mesh={text!r} gives {axis} twice")
        seen.add(axis)
        if axis not in AXES:
            raise ValueError(f"mesh={text!r}: there is no axis {axis!r}" + did_you_mean(axis, AXES))
        if not size.isdecimal() or int(size) == 0:
            raise ValueError(f"mesh={text!r}: {axis} must be a positive number, as in data=4")
        sizes[axis] = int(size)
    return sizes


def make_mesh(text: str | None = None, batch_size: int | None = None) -> Mesh:
    """The mesh of these sizes, of all processes' devices.

    Devices of one process lie side by side, so that it has consecutive rows of every batch.

    Args:
        text: as for `parse_mesh`; None: all devices along `data`, or, in a single process, as many
            as can share the batch.
        batch_size: images that they must divide.

    Raises:
        ValueError: as `parse_mesh`; there are not that many devices; several processes do not use
            all of theirs; or the devices do not divide the batch.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    several, batch_size = jax.process_count() > 1, batch_size or 0
    sizes = {"data": len(devices), "fsdp": 1}
    if text:
        sizes = parse_mesh(text)
    elif not several:
        sizes["data"] = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    count = math.prod(sizes.values())
    if count > len(devices) or (count < len(devices) and several):
        raise ValueError(
            f"mesh={text!r} is for {count} devices, and there are {len(devices)}"
            + (": all processes take part with all of theirs" if several else "")
        )
    if batch_size % count:
        raise ValueError(
            f"{count} devices cannot share a batch of {batch_size} images, or of a part of one: "
            f"choose a --batch-size that {count}, and --grad-accum-steps times that, divides"
        )
    grid = np.array(devices[:count]).reshape([sizes[axis] for axis in AXES])
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def platform_of(mesh: Mesh | None) -> str:
    """Of its devices, such as "cpu"; None: what computes by default."""
    return jax.default_backend() if mesh is None else mesh.devices.flat[0].platform


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """How each array is cut: along `fsdp`, in its longest dimension that can be, or not at all."""
    return jax.tree.map(lambda x: NamedSharding(mesh, _spec(np.shape(x), mesh.shape["fsdp"])), tree)


def _spec(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    fitting = [i for i, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or not fitting or math.prod(shape) < MIN_CUT:
        return PartitionSpec()
    longest = max(fitting, key=lambda i: shape[i])
    return PartitionSpec(*[None] * longest, "fsdp")


def keep_cut(tree: Any, mesh: Mesh | None) -> Any:
    """Inside `jit`: a state cut by the rule, whatever XLA would have liked."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, state_shardings(tree, mesh))


def keep_whole(tree: Any, mesh: Mesh | None) -> Any:
    """Inside `jit`: arrays that every device has a copy of."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def put_whole(tree: Any, mesh: Mesh) -> Any:
    """Host arrays, the same in every process, with a copy on every device."""
    whole = NamedSharding(mesh, PartitionSpec())
    put = lambda x: jax.make_array_from_process_local_data(whole, np.asarray(x))
    return jax.tree.map(put, tree)


def put_batch(batch: dict[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's part of a batch, as a part of the whole; what is on devices already stays."""

    def put(name, x):
        if isinstance(x, jax.Array):
            return x
        return jax.make_array_from_process_local_data(batch_sharding(name, x.ndim, mesh), x)

    return {name: put(name, x) for name, x in batch.items()}


def batch_sharding(name: str, ndim: int, mesh: Mesh, resident: bool = False) -> NamedSharding:
    """How an array of a batch is cut: along both axes, in its images.

    Of an `index` (steps, b) these come second; a `resident` data set is not cut.
    """
    before = [None] * (ndim - 1 if name == "index" else 0)
    return NamedSharding(mesh, PartitionSpec() if resident else PartitionSpec(*before, AXES))
