"""Training steps compiled ahead: one for each shape of batch; on a CPU, large ones save memory.

XLA orders a CPU's work so that much of it could be done at once, by which a step holds arrays for
longer: CvT's takes 168 MiB on each device instead of 122. And it gives a program's temporaries one
block of memory, which it takes back after every step: malloc then fetches it anew from the system,
page by page. glibc can be told to keep blocks of less than 32 MiB for the next step. In such blocks
a step of CvT takes a third less time.

The price: small steps would take a twentieth more time in the other order, so that what a step
needs is guessed before it is compiled; and JAX's cache on disk does not take programs with several
blocks, so that every process compiles them.
"""

import warnings
from typing import Any

import jax

from vix_flax.array_bytes import bytes_of, largest_array, most_held
from vix_flax.host_memory import give_back_freed_memory, keep_freed_blocks
from vix_flax.training.mesh import platform_of
from vix_flax.training.state import TrainState
from vix_flax.training.step import train_step

BLOCK_BYTES = 31 * 2**20
MANY_BYTES = {"cpu": 64 * 2**20}  # on each device, from which this pays; elsewhere it never does


class StepPrograms:
    """`train_step` with these options: called with (state, batch), it gives the same.

    The state is donated. A batch of another shape is compiled first. A program in blocks tells
    glibc's malloc, for the whole process, to keep them (`vix_flax.host_memory.keep_freed_blocks`).
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
        return compile_frugally(traced, state, self.options.get("mesh"))


def compile_frugally(
    traced: jax.stages.Traced, whole: Any, mesh: jax.sharding.Mesh | None
) -> jax.stages.Compiled:
    """The program of what was traced; on a CPU, one that needs much memory is made to need less.

    What compiling has freed is given back to the system; but blocks are taken from it (given back
    first, a step of CvT took 3 % longer).

    Args:
        traced: by `jax.jit(…).trace`.
        whole: arrays of a size that each device has whole; others are cut.
        mesh: the devices; None: there is one.
    """
    lowered = traced.lower()
    devices = 1 if mesh is None else mesh.size
    many = MANY_BYTES.get(platform_of(mesh))
    if many is None or most_held(traced.jaxpr) // devices <= many:
        compiled = lowered.compile()
        give_back_freed_memory()
        return compiled
    # XLA complains of an array that no block can hold.
    sizes = map(bytes_of, jax.tree.leaves(whole))
    options = {
        "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
        "xla_multiheap_size_constraint_per_heap": max(
            BLOCK_BYTES, largest_array(traced.jaxpr) // devices, *sizes
        ),
    }
    with warnings.catch_warnings():
        several = "Error writing persistent compilation cache .*Multiple temp buffer allocations"
        warnings.filterwarnings("ignore", several)
        compiled = lowered.compile(options)
    keep_freed_blocks()
    return compiled
