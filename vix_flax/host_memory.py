"""On a CPU, keep freed memory in the process instead of returning it after every step."""

import ctypes
import sys

import jax

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
GIVE_NOTHING_BACK = {M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}  # 64 MiB: an arena's piece
LARGEST_KEPT = 2**25  # bytes, in any arena but the main one


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to reuse large blocks; True if it did (False on other systems).

    XLA allocates a step's temporaries as one block and frees it after the step. By default glibc
    unmaps it, and the next step pays for every page again: a third of the time of `vix train`. The
    price is that the process keeps its largest size.

    Only malloc's main arena can hold such blocks, and only the main thread is sure to use it: so
    programs on the CPU are also run by the thread that calls them, not handed to another. Limiting
    malloc to one arena instead would let compilation litter it (measured: steps half as fast).

    Call it once, before the first computation; the `vix` command does.
    """
    if not _mallopt({M_MMAP_MAX: 0, **GIVE_NOTHING_BACK}):
        return False
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return True


def keep_freed_blocks() -> bool:
    """Tells glibc's malloc to reuse blocks smaller than 32 MiB, whoever frees them; True if it did.

    It keeps some by itself, but unmaps all but one 64 MiB piece of an arena that is free: a step of
    CvT, on two cores, had 19,000 pages fetched anew. Larger blocks are given back as before.
    `StepPrograms` calls it for programs whose memory lies in such blocks.
    """
    return _mallopt({M_MMAP_THRESHOLD: LARGEST_KEPT, **GIVE_NOTHING_BACK})


def give_back_freed_memory() -> bool:
    """Has glibc's malloc return what is free now to the system; True if it did.

    Compiling a training step frees a hundred to five hundred MB, in the arenas of XLA's threads,
    which training does not use: without this a process keeps them to its end.
    """
    trim = _of_glibc("malloc_trim")
    return trim is not None and bool(trim(0))


def _mallopt(options):
    mallopt = _of_glibc("mallopt")
    if mallopt is None:
        return False
    return all([mallopt(option, value) for option, value in options.items()])  # noqa: C419 (all set)


def _of_glibc(name):
    """Its function; None where there is another libc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
