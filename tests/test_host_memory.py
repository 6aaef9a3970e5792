"""With glibc, large blocks stay in the process; elsewhere nothing happens."""

import subprocess
import sys

import pytest

from vix_flax import host_memory

# A step takes blocks and frees them: on the main thread, or on one with a malloc arena of its own.
FAULTS = """
import resource, runpy, sys, threading
path, keep, where, size, count = sys.argv[1:]
if keep:
    print(runpy.run_path(path)[keep]())
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps():
    for i in range(5):
        if i == 1:
            before = faults()
        blocks = [bytearray(b"x") * int(size) for _ in range(int(count))]
        del blocks
    print(faults() - before)
if where == "main":
    steps()
else:
    thread = threading.Thread(target=steps)
    thread.start()
    thread.join()
"""
KEEP = {  # name: where, the size of a block and their number
    "keep_freed_memory": ("main", 2**26, 1),
    "keep_freed_blocks": ("thread", 31 * 2**20, 4),
}


FUNCTIONS = (*KEEP, "give_back_freed_memory")
# A thread fills an arena of its own with small blocks, as compiling does, and frees all but the
# last: malloc by itself gives nothing of it back.
FREED = """
import runpy, sys, threading
from pathlib import Path
functions = runpy.run_path(sys.argv[1])
def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
def work():
    blocks = [bytes(1000) for _ in range(100_000)]
    last.append(blocks.pop())
last = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
before = held()
print(functions["give_back_freed_memory"](), before - held())
"""


def faults(keep, *blocks):
    """What the function called `keep` (if any) returned, and page faults of four steps."""
    argv = [sys.executable, "-c", FAULTS, host_memory.__file__, keep, *map(str, blocks)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    *returned, count = done.stdout.split()
    return returned, int(count)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch, function, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert getattr(host_memory, function)() is False


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_c_library_of_another_kind_is_left_alone(monkeypatch, function):
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: object())
    assert getattr(host_memory, function)() is False


@pytest.mark.parametrize("keep", KEEP)
def test_where_it_says_so_freed_blocks_are_used_again(keep):
    returned, kept = faults(keep, *KEEP[keep])
    assert returned in (["True"], ["False"])
    if returned == ["True"]:
        assert kept < faults("", *KEEP[keep])[1] / 10


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_what_compiling_has_freed_is_given_back():
    argv = [sys.executable, "-c", FREED, host_memory.__file__]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    returned, kib = done.stdout.split()
    assert returned == "True"
    assert int(kib) > 80_000
