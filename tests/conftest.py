"""Tests compile many tiny models: optimizing machine code would cost more than it saves."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
).strip()

# The files that take longest start first, so that two workers finish together.
LONGEST = ("test_zoo", "test_golden", "test_grid", "test_params", "test_readme")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)
