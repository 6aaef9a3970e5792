"""How long until the first step: imports, `vix list`, and the quickstart model, cold and cached.

    python benchmarks/startup.py                 # five rounds; --save writes JSON to results/

Every number is a process of its own, from its start to its end, or for the first step until it is
done; they take turns, so that a busy machine slows all. `import` is what `import vix_flax` adds
to a process that imports jax and flax anyway; "cold" has an empty compilation cache.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from record import save

IMPORTS = "import jax, jax.numpy, flax.linen"
FIRST_STEP = """
import gc, os
from vix_flax.cores import use_all_cores
from vix_flax.launch import prepare
from vix_flax.host_memory import keep_freed_memory
from vix_flax.recipes import recipe
from vix_flax.run import dataset_of
from vix_flax.training.mesh import put_batch
from vix_flax.user_cache import keep_compiled_programs
import jax
gc.freeze()
use_all_cores()
keep_freed_memory()
keep_compiled_programs()
config = recipe("digits")
trainer = prepare(config, dataset_of(config))
needed = trainer.bytes_needed()
batch = put_batch(next(trainer.batches), trainer.mesh)
jax.block_until_ready(trainer.step(trainer.fresh_state(), batch))
os._exit(0)  # what comes at a process's end is not counted
"""
COMMANDS = {
    "jax and flax": ["-c", IMPORTS],
    "vix_flax": ["-c", f"{IMPORTS}, vix_flax"],
    "vix list": ["-m", "vix_flax", "list"],
    "first step, cold": ["-c", FIRST_STEP],
    "first step, cached": ["-c", FIRST_STEP],
}


def seconds_of(argv, cache):
    """From the start of a process to its end; of a first step, until it is done."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *argv],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "XDG_CACHE_HOME": cache},
    )
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    measured = {name: [] for name in COMMANDS}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as cache:  # the cold step fills it for the cached one
            for name, argv in COMMANDS.items():
                measured[name].append(seconds_of(argv, cache))
    pairs = zip(measured["vix_flax"], measured["jax and flax"], strict=True)
    added = statistics.median(ours - theirs for ours, theirs in pairs)
    seconds = {name: round(statistics.median(times), 2) for name, times in measured.items()}
    for name, value in seconds.items():
        print(f"{name:20}{value:8.2f} s")
    print(f"{'import adds':20}{added:8.2f} s")
    if args.save:
        result = {"rounds": args.rounds, "seconds": seconds, "import_adds": round(added, 2)}
        print(save("startup_cpu", ("jax", "flax"), **result))


if __name__ == "__main__":
    main()
