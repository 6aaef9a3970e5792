"""Tests compile many tiny models: optimizing machine code would cost more than it saves."""

import gc
import os
import tempfile
from importlib.metadata import version

import pytest

FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
# One device, whichever test comes first: the commands would ask for one a core.
FLAGS.append("--xla_force_host_platform_device_count=1")
# The two workers have all cores: one program is not for several threads to share.
FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
# The older emitters compile in two thirds of the time; later versions know no such flag.
if version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
# What one worker or one file has compiled, the others need not.
if "PYTEST_XDIST_WORKER" not in os.environ:
    COMPILED = tempfile.TemporaryDirectory(prefix="vix_flax-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # a tenth of the time for lines nobody reads
gc.set_threshold(20_000, 50, 100)  # tracing makes many objects; looking through them is a tenth
os.environ["TFDS_DATA_DIR"] = "no data sets here"  # whatever this machine has

# The files that take longest start first, so that two workers finish together.
LONGEST = ("test_zoo", "test_golden", "test_grid", "test_params", "test_readme")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)
    import jax  # after XLA_FLAGS are set

    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing and jax.default_backend() != "gpu":
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The result of a short training run, and what its hooks were called with."""
    from short_run import CONFIG  # after XLA_FLAGS are set

    from vix_flax.launch import train

    started, steps, epochs = [], [], []
    result = train(
        CONFIG,
        tmp_path_factory.mktemp("runs"),
        on_start=started.append,
        on_step=lambda _: steps.append(1),
        on_epoch=epochs.append,
    )
    return result, started, steps, epochs


@pytest.fixture(scope="session")
def result(trained):
    return trained[0]
