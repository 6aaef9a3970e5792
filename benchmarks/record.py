"""Where results are kept, each with its machine, versions and date: `benchmarks/results/`."""

import json
import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def three_digits(number):
    return f"{float(f'{number:.3g}'):,g}"


def save(name, packages=(), device=None, **content):
    """Writes `results/NAME.json`; returns its path. The machine is called by its `device`, or by
    its processor.

    What was measured elsewhere brings `date`, `machine` and `versions` along.
    """
    from vix_flax.timing import processor  # imports jax, which torch's processes do without

    if flags := os.environ.get("XLA_FLAGS"):
        content["xla_flags"] = flags
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{device or processor()}, {len(os.sched_getaffinity(0))} cores",
        "versions": {package: version(package) for package in packages},
        **content,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path
