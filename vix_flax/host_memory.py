"""On a CPU, keep freed memory in the process instead of returning it after every step."""

import ctypes
import sys

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to reuse large blocks; True if it did (False on other systems).

    XLA allocates a step's temporaries as one block and frees it after the step. By default glibc
    unmaps it, and the next step pays for every page again: 32,000 page faults and 40 % of the time
    of a ViT training step of 131 MB. The price is that the process keeps its largest size.

    Call it once, before the first computation; the `vix` command does.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # One arena: the others cannot hold a block of more than 64 MB and fall back to mapping it.
    options = {M_ARENA_MAX: 1, M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26}
    return all(mallopt(option, value) for option, value in options.items())
