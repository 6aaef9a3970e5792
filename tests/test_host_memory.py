"""With glibc, large blocks stay in the process; elsewhere nothing happens."""

import subprocess
import sys

import pytest

from vix_flax import host_memory

FAULTS = """
import resource, runpy, sys
if sys.argv[2] == "keep":
    print(runpy.run_path(sys.argv[1])["keep_freed_memory"]())
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block = bytearray(b"x") * 2**26
del block
before = faults()
for _ in range(4):
    block = bytearray(b"x") * 2**26
    del block
print(faults() - before)
"""


def faults(mode):
    """What `keep_freed_memory` returned, and page faults of allocating four blocks anew."""
    argv = [sys.executable, "-c", FAULTS, host_memory.__file__, mode]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    *returned, count = done.stdout.split()
    return returned, int(count)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert host_memory.keep_freed_memory() is False


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch):
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: object())
    assert host_memory.keep_freed_memory() is False


def test_where_it_says_so_freed_blocks_are_used_again():
    returned, kept = faults("keep")
    assert returned in (["True"], ["False"])
    if returned == ["True"]:
        assert kept < faults("default")[1] / 10
