"""`python on_devices.py JOBS`: trains on eight simulated devices, one job after the other.

A job is `{"folder", "config"}` and, optionally, `"stop"`, after how many of its steps, and
`"kept"`, bytes that a part's passes may keep on each device. Prints how often each job compiled a
training step, as JSON.
"""

import contextlib
import json
import logging
import os
import sys

import jax

from vix_flax.launch import train
from vix_flax.trainer import Stopped
from vix_flax.training import TrainConfig, parts

KEPT_BYTES = parts.KEPT_BYTES
FLAG = "--xla_force_host_platform_device_count=8"


class Compilations(logging.Handler):
    """Counts what XLA compiles of one name."""

    def __init__(self, name):
        super().__init__()
        self.name_, self.count = name, 0

    def emit(self, record):
        message = record.getMessage()
        self.count += message.startswith("Finished XLA compilation") and self.name_ in message


def main(jobs):
    jax.config.update("jax_log_compiles", True)
    logging.getLogger("jax").propagate = False
    counts = []
    for job in jobs:
        parts.KEPT_BYTES = job.get("kept", KEPT_BYTES)
        seen, taken = Compilations("jit(train_step)"), []
        logging.getLogger("jax").addHandler(seen)
        with contextlib.suppress(Stopped):
            train(
                TrainConfig(**job["config"]),
                job["folder"],
                on_step=taken.append,
                stop=lambda: len(taken) >= job.get("stop", 10**9),  # noqa: B023
            )
        counts.append(seen.count)
    print(json.dumps(counts))


if __name__ == "__main__":  # and not where doctests are looked for
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAG}"
    main(json.loads(sys.argv[1]))
