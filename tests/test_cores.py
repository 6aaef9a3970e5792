"""In processes of their own: a process has its devices from the first computation on."""

import os
import subprocess
import sys

import pytest

SAYS_HOW_MANY = """
import jax
{before}
from vix_flax.cores import use_all_cores
print(use_all_cores(), use_all_cores(), jax.device_count())
"""


def devices(before="", **environment):
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    code = SAYS_HOW_MANY.format(before=before)
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {int(n) for n in done.stdout.split()}


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (3, 3), (64, 8)])
def test_there_is_a_device_for_each_core_up_to_eight(cores, expected):
    assert devices(f"import os; os.sched_getaffinity = lambda _: range({cores})") == {expected}


@pytest.mark.slow
def test_what_the_user_asks_for_stays():
    assert devices(JAX_NUM_CPU_DEVICES="5") == {5}
    assert devices(XLA_FLAGS="--xla_force_host_platform_device_count=5") == {5}


@pytest.mark.slow
def test_too_late_it_changes_nothing():
    assert devices("jax.numpy.zeros(1)") == {1}
