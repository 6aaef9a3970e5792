"""Training steps compiled ahead: one program for each shape of batch; on a CPU, memory in blocks.

XLA gives a program's temporaries one block of memory, and takes it back after every step. glibc
keeps freed blocks of up to 32 MiB for the next step; a larger one is fetched anew from the system,
page by page. In blocks that are kept, a step of CvT on two cores (330 MiB, 81,000 pages) takes a
fifth less time, and with `keep_freed_memory`, as in `vix train`, a third less. The price: what a
program needs is known only when it is compiled, so a large one is compiled twice; and JAX's cache
on disk does not take it in blocks, so that every process compiles it once.
"""

import warnings
from typing import Any

import jax

from vix_flax.flops import largest_array
from vix_flax.training.state import TrainState
from vix_flax.training.step import train_step

BLOCK_BYTES = 31 * 2**20
MANY_BYTES = {"cpu": 64 * 2**20}  # of temporaries, from which blocks pay; elsewhere they never do


class StepPrograms:
    """`train_step` with these options: called with (state, batch), it gives the same.

    The state is donated. A batch of another shape is compiled first.
    """

    def __init__(self, **options: Any):
        self.options = options
        self._programs = {}

    def __call__(
        self, state: TrainState, batch: dict[str, jax.Array]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """The next state and this step's metrics."""
        context = {"context": self.options["context"]} if "context" in self.options else {}
        return self.compiled(state, batch)(state, batch, **context)

    def compiled(self, state: TrainState, batch: dict[str, Any]) -> jax.stages.Compiled:
        """The program for these arrays, or for abstract ones with their shardings."""
        key = tuple((name, x.shape, x.dtype) for name, x in sorted(batch.items()))
        if key not in self._programs:
            self._programs[key] = self._compile(state, batch)
        return self._programs[key]

    def _compile(self, state, batch):
        traced = train_step.trace(state, batch, **self.options)
        return compile_in_blocks(traced, state, self.options.get("mesh"))


def compile_in_blocks(
    traced: jax.stages.Traced, whole: Any, mesh: jax.sharding.Mesh | None
) -> jax.stages.Compiled:
    """The program of what was traced; if it has many temporaries, they lie in blocks.

    Args:
        traced: by `jax.jit(…).trace`.
        whole: arrays of a size that each device has whole; others are cut.
        mesh: the devices; None: there is one.
    """
    lowered = traced.lower()
    compiled = lowered.compile()
    platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
    many = MANY_BYTES.get(platform)
    if many is None or compiled.memory_analysis().temp_size_in_bytes <= many:
        return compiled
    # XLA complains of an array that no block can hold.
    devices = 1 if mesh is None else mesh.size
    sizes = (x.size * x.dtype.itemsize for x in jax.tree.leaves(whole))
    block = max(BLOCK_BYTES, largest_array(traced.jaxpr) // devices, *sizes)
    with warnings.catch_warnings():
        several = "Error writing persistent compilation cache .*Multiple temp buffer allocations"
        warnings.filterwarnings("ignore", several)
        return lowered.compile({"xla_multiheap_size_constraint_per_heap": block})
