"""How long a call takes, on which machine, with which versions."""

import platform
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax

from vix_flax.cores import count_cores

LEAST_CALLS = 3


class Pace(NamedTuple):
    """How often to call: `calls` times, or for `seconds`, but three times at least.

    `most` seconds are not exceeded by another call, whatever the rest says.
    """

    calls: int | None = None
    seconds: float = 3.0
    most: float = float("inf")


def median_seconds(call: Callable[[], Any], pace: Pace) -> tuple[float, int]:
    """The median of the calls' seconds, and how many; the first call does not count.

    Args:
        call: gives arrays, which are waited for.
        pace: how often.
    """
    began = time.perf_counter()
    jax.block_until_ready(call())
    times = []
    while True:
        start = time.perf_counter()
        jax.block_until_ready(call())
        now = time.perf_counter()
        times.append(now - start)
        enough = pace.calls or LEAST_CALLS
        done = len(times) >= enough and (pace.calls or sum(times) >= pace.seconds)
        if done or now - began + times[-1] > pace.most:
            return statistics.median(times), len(times)


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error of XLA or of the system says."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def device_name() -> str:
    """Of what JAX computes on: a GPU's or TPU's name, or the processor's and its cores."""
    kind = jax.devices()[0].device_kind
    return kind if jax.default_backend() != "cpu" else f"{processor()}, {count_cores()} cores"


def processor() -> str:
    """What the CPU calls itself, or its architecture."""
    with suppress(OSError):  # there is no such file
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def about() -> dict[str, Any]:
    """Device, versions and date: what numbers mean nothing without."""
    packages = ("vix_flax", "jax", "jaxlib", "flax", "numpy")
    return {
        "device": device_name(),
        "platform": jax.default_backend(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "date": datetime.now(UTC).date().isoformat(),
    }
