"""How fast a model trains and answers on this machine, and the share of what its device can do."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vix_flax.data.augment import Augment
from vix_flax.flops import count_flops
from vix_flax.inspect import count_params
from vix_flax.models.image import example_image
from vix_flax.preflight import GIB, bytes_needed, bytes_there
from vix_flax.presets import create_model
from vix_flax.timing import Pace, median_seconds, out_of_memory
from vix_flax.training import create_state, make_optimizer, make_schedule, train_step
from vix_flax.training.mesh import batch_sharding, make_mesh, put_batch, state_shardings
from vix_flax.training.programs import compile_frugally

PEAK_SIDE = {"cpu": 2048}  # of the matrices; other devices need more work to be busy
PEAK_CALLS = 5


@dataclass(frozen=True)
class Speed:
    """One program on one batch: a whole training step, or inference.

    Attributes:
        task: "training" or "inference".
        batch_size: images of one call.
        devices: that share them.
        flops: of one image, recomputation in the backward pass included.
        compile_seconds: of tracing, lowering and compiling.
        bytes: what all devices together hold while it runs.
        seconds: of one call, the median; None: it was not run.
        calls: that were measured.
        left_out: why it was not run.
    """

    task: str
    batch_size: int
    devices: int
    flops: int
    compile_seconds: float
    bytes: int
    seconds: float | None = None
    calls: int = 0
    left_out: str = ""

    @property
    def images_per_second(self) -> float | None:
        """None if it was not run."""
        return None if self.seconds is None else self.batch_size / self.seconds

    def share_of(self, peak: float) -> float | None:
        """FLOPs a second over those of the device's `peak`; None if it was not run."""
        rate = self.images_per_second
        return None if rate is None else self.flops * rate / peak


def checked_model(name: str, fields: dict[str, Any]) -> tuple[nn.Module, int]:
    """The preset with some fields changed, and the number of its parameters.

    Raises:
        ValueError: as `create_model`; or the model cannot run or be trained. Nothing is compiled.
    """
    model = create_model(name, **fields)
    try:
        given = (jax.random.key(0), example_image(model))
        logits, variables = jax.eval_shape(model.init_with_output, *given)
    except TypeError as error:  # such as a dtype that there is not
        raise ValueError(f"{name} cannot be built: {error}") from error
    if isinstance(logits, tuple):
        raise ValueError(f"{name} with num_distill_classes has a second head, which is not trained")
    return model, count_params(variables)


def measure_model(model: nn.Module, batch_size: int, pace: Pace) -> Iterator[Speed]:
    """Training (`train_step` with AdamW), then inference, each cut along all devices.

    Args:
        model: any backbone.
        batch_size: images a step; as many devices are used as can share them.
        pace: how often each is called.
    """
    mesh = make_mesh(None, batch_size)
    shape = example_image(model, batch_size).shape
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, np.uint8)
    batch = {"image": images, "label": np.zeros(batch_size, np.int32)}
    augment = Augment((0.5,) * shape[-1], (0.25,) * shape[-1])
    tx = make_optimizer("adamw", make_schedule("constant", 1e-3, 1), 0.01)
    fresh = partial(create_state, model, jax.ShapeDtypeStruct(shape, jnp.float32), tx, mesh=mesh)

    placed = lambda x, sharding: x.update(sharding=sharding)
    state = jax.eval_shape(fresh)
    state = jax.tree.map(placed, state, state_shardings(state, mesh))
    batch_shapes = {
        key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=batch_sharding(key, x.ndim, mesh))
        for key, x in batch.items()
    }
    infer = jax.jit(lambda variables, images: model.apply(variables, augment(images)))
    for task, program, given, options in (
        ("training", train_step, (state, batch_shapes), {"augment": augment, "mesh": mesh}),
        ("inference", infer, (state.eval_variables, batch_shapes["image"]), {}),
    ):
        start = time.perf_counter()
        traced = program.trace(*given, **options)
        compiled = compile_frugally(traced, given[0], mesh)
        speed = dict(
            task=task,
            batch_size=batch_size,
            devices=mesh.size,
            compile_seconds=time.perf_counter() - start,
            flops=count_flops(traced.jaxpr) // batch_size,
            bytes=bytes_needed(compiled) * mesh.size,
        )
        needed, there = bytes_needed(compiled), bytes_there()
        if needed > there:
            short = f"needs {needed / GIB:.3g} GiB of each device, which has {there / GIB:.3g}"
            yield Speed(**speed, left_out=short)
            continue
        try:
            call = _call(task, compiled, fresh(), put_batch(batch, mesh))
            seconds, calls = median_seconds(call, pace)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            yield Speed(**speed, left_out="out of memory")
        else:
            yield Speed(**speed, seconds=seconds, calls=calls)


def _call(task, compiled, state, batch):
    """One step, or the logits of one batch."""
    if task == "inference":
        return partial(compiled, state.eval_variables, batch["image"])

    def step():
        nonlocal state
        state, metrics = compiled(state, batch)
        return state, metrics

    return step


def matmul_peak(dtype: Any, batch_size: int) -> float:
    """FLOPs a second of a large matrix product in this dtype, the best of several.

    On the devices that share a batch of `batch_size` images: each multiplies some of the rows.
    """
    mesh = make_mesh(None, batch_size)
    side = PEAK_SIDE.get(jax.default_backend(), 8192)
    side = -(-side // mesh.size) * mesh.size
    rng = np.random.default_rng(0)
    square = rng.standard_normal((side, side), np.float32).astype(jnp.dtype(dtype))
    rows = put_batch({"rows": square}, mesh)["rows"]
    whole = jax.device_put(rows, jax.NamedSharding(mesh, jax.P()))
    multiply = jax.jit(jnp.matmul).lower(rows, whole).compile()
    best = float("inf")
    for _ in range(PEAK_CALLS):
        best = min(best, median_seconds(partial(multiply, rows, whole), Pace(calls=1))[0])
    return 2 * side**3 / best
