"""Several processes as one: they start, fail and stop together, and the first of them speaks.

Each runs the same command and has its own devices; what they exchange goes through JAX's runtime.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils


def join(how: str = "auto") -> None:
    """Makes this process one of several; before anything else is done with JAX.

    Args:
        how: `"auto"`, where SLURM, Open MPI, Kubernetes or a TPU pod tell who is there; or
            `"HOST:PORT,INDEX,COUNT"`: where process 0 listens, which one this is, and of how many.

    Raises:
        ValueError: neither, or nobody tells who is there, or the others do not come.
    """
    given = ()
    if how != "auto":
        address, *numbers = how.split(",")
        if ":" not in address or len(numbers) != 2 or not all(n.isdecimal() for n in numbers):
            raise ValueError(f"distributed={how!r} must be auto or HOST:PORT,INDEX,COUNT")
        index, count = map(int, numbers)
        if index >= count:
            raise ValueError(f"distributed={how!r}: INDEX is counted from 0 and below COUNT")
        given = (address, count, index)
    try:
        jax.distributed.initialize(*given)
    except (ValueError, RuntimeError) as error:
        if how == "auto":
            raise ValueError(
                "distributed: no cluster was found here that tells which processes there are "
                f"({error}); say it as HOST:PORT,INDEX,COUNT"
            ) from error
        raise ValueError(f"distributed={how!r}: {error}") from error


def is_first() -> bool:
    """Whether this process writes and speaks for all."""
    return jax.process_index() == 0


def shard() -> tuple[int, int]:
    """Which of how many equal parts of every batch this process provides."""
    return jax.process_index(), jax.process_count()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What fails in one process fails in all of them: none waits for one that is gone.

    Raises:
        ValueError: another process has failed here.
    """
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    if jax.process_count() > 1:
        failed = multihost_utils.process_allgather(np.array(error is not None))
        if error is None and failed.any():
            raise ValueError(f"process {failed.argmax()} has failed: see what it printed")
    if error is not None:
        raise error


def least(value: int) -> int:
    """The smallest of what the processes have."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.array(value, np.float64)).min())


def stop_together(asked: bool, call: int) -> bool:
    """Whether to stop now: several processes agree on when, soon after one of them is asked.

    Args:
        asked: whether this process is.
        call: the number of this call; the same in all processes.
    """
    if jax.process_count() == 1:
        return asked
    if asked:
        os.kill(os.getpid(), signal.SIGTERM)  # of which JAX tells the others
    return multihost_utils.reached_preemption_sync_point(call)
