"""Tests compile many tiny models: optimizing machine code would cost more than it saves."""

import os
from importlib.metadata import version

FLAGS = ["--xla_backend_optimization_level=0"]
# The older emitters compile in two thirds of the time; later versions know no such flag.
if version("jaxlib").startswith("0.10."):
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()

# The files that take longest start first, so that two workers finish together.
LONGEST = ("test_zoo", "test_golden", "test_grid", "test_params", "test_readme")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)
