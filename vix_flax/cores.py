"""On a CPU, one XLA device for each core: a batch cut along `data` keeps all of them busy."""

import contextlib
import os

import jax

MOST = 8  # devices; beyond them, each device's larger operations share the cores that are left


def use_all_cores() -> int:
    """Makes the CPU as many devices as it has cores (at most 8); how many there are now.

    XLA runs a batch of small matrix products on one thread: ViN's pseudo-inverse, every head's
    scores. Two devices of half a batch each do them at the same time (measured on two cores: a
    training step of ViN takes two thirds of the time, see `benchmarks/`). Arrays must lie on them:
    `make_mesh` and `put_batch` of `vix_flax.training.mesh`, as `vix train` does by itself.

    Call it once, before the first computation: afterwards it changes nothing. GPUs and TPUs are
    not touched, and neither is a number that `JAX_NUM_CPU_DEVICES` or `XLA_FLAGS` asks for.
    """
    asked = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if jax.config.jax_num_cpu_devices < 1 and not asked:
        with contextlib.suppress(RuntimeError):  # JAX has its devices already
            jax.config.update("jax_num_cpu_devices", min(count_cores(), MOST))
    return jax.local_device_count(backend="cpu")


def count_cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
