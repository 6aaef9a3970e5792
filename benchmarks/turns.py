"""The sides of a comparison take turns, each in a process of its own: times, memory, ratios.

`compare` starts a script again for each side with `--worker SPEC`; there the script calls `serve`.
On a CPU it does so twice: what compiling leaves behind counts as memory there, so that the first
process only fills the side's cache of compiled programs, and the second is measured.
"""

import argparse
import ctypes
import json
import math
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory

from record import save

OURS = "ours"
TIME, MEMORY = UNITS = "milliseconds", "megabytes"
WARM_UP = 3  # calls
TURN_SECONDS = 0.3  # at least: of quick calls there are more
READY, TOO_LARGE = "ready", "out of memory"  # what a side says when it has warmed up
# What every side's process is started with. All rows share a GPU, and nobody may take it whole.
DEVICES = {
    "cpu": {"JAX_PLATFORMS": "cpu"},
    "gpu": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
}
# "pools": glibc keeps freed memory, in huge pages.
MALLOC = {
    "default": {},
    "pools": {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "100000000000",
        "MALLOC_TOP_PAD_": "268435456",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    },
}


def parser(doc, rounds=5, calls=5):
    """The flags that every comparison has."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of every side")
    parser.add_argument("--calls", type=int, default=calls, help="calls a turn, at least")
    parser.add_argument("--malloc", choices=MALLOC, default="default", help="of every side")
    parser.add_argument(
        "--ahead", type=int, default=1, metavar="ROWS", help="whose sides start and compile at once"
    )
    parser.add_argument("--save", action="store_true", help="writes JSON to benchmarks/results/")
    parser.add_argument("--worker", type=json.loads, metavar="SPEC", help=argparse.SUPPRESS)
    parser.set_defaults(device="cpu")
    return parser


def serve(load, build, most_held=None):
    """One side's process: `load` imports, `build` returns the call that is measured.

    Answers each line on stdin: a number of calls with the seconds of each, "memory" with the most
    bytes that calls take: what `most_held` says of a GPU, or of the process, more than after the
    imports.
    """
    load()
    imported = pages()["RssAnon"]
    try:
        call = build()
        for _ in range(WARM_UP):
            call()
    except (RuntimeError, MemoryError) as error:
        if TOO_LARGE not in str(error).lower():
            raise
        print(TOO_LARGE, flush=True)
        return
    print(READY, flush=True)
    for line in sys.stdin:
        if line.strip() != "memory":
            answer = turn(call, int(line))
        else:
            answer = most_held() if most_held else peak(call) - imported
        print(json.dumps(answer), flush=True)


def turn(call, calls):
    """The seconds of so many calls, and of more while the turn is short."""
    taken = []
    while len(taken) < calls or sum(taken) < TURN_SECONDS:
        taken.append(timed(call))
    return taken


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def pages():
    """This process's memory, in bytes, by Linux's names."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        name: 1024 * int(value.split()[0])
        for name, _, value in (line.partition(":") for line in lines)
        if value.endswith(" kB")
    }


def peak(call):
    """The most bytes that the process holds during calls, without the files mapped (code)."""
    ctypes.CDLL(None).malloc_trim(0)  # what compiling has freed is not the call's
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    call()
    call()
    now = pages()
    return now["VmHWM"] - now["RssFile"]


def caches_in(folder):
    """The environment in which JAX and torch keep compiled programs there."""
    return {
        "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch",
    }


class Side:
    """A side's process, which starts and compiles at once; a context that ends it."""

    def __init__(self, script, spec, args, caches):
        self.spec = spec
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environ, **DEVICES[args.device], **MALLOC[args.malloc], **caches},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.terminate()
        self.process.wait()

    def runs(self):
        """Waits until it has warmed up; whether it could. If not, that is said."""
        said = self.process.stdout.readline().strip()
        if said != READY:
            print(f"  left out, {said or 'it failed'}: {self.spec}", file=sys.stderr, flush=True)
        return said == READY

    def ask(self, line):
        print(line, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@contextmanager
def running(script, rows, args, caches):
    """{row: {name: Side}} of {row: {name: spec}}, started at once: those that have warmed up.

    All are waited for: nothing is measured while something compiles.
    """
    with ExitStack() as stack:
        start = lambda spec: stack.enter_context(Side(script, spec, args, caches))
        started = {
            row: {name: start(spec) for name, spec in sides.items()} for row, sides in rows.items()
        }
        yield {
            row: {name: side for name, side in sides.items() if side.runs()}
            for row, sides in started.items()
        }


def measure(sides, args):
    """{name: {each of UNITS}} for {name: Side}: medians of calls, taking turns (A B A B)."""
    seconds = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            seconds[name] += side.ask(args.calls)
    megabytes = {name: side.ask("memory") / 1e6 for name, side in sides.items()}
    return {
        name: dict(zip(UNITS, (1e3 * statistics.median(taken), megabytes[name]), strict=True))
        for name, taken in seconds.items()
    }


def compare(script, specs, args, averaged=()):
    """Measures {title: {row: {side: spec}}}, printing each row; the same with numbers for specs.

    Sides that do not run are left out: published classes do not take every dtype, nor fit into
    every memory. Printed is also the geometric mean of the ratios, of the `averaged` rows (of all).
    """
    measured = {}
    for title, rows in specs.items():
        print(title, flush=True)
        measured[title] = {}
        waiting = list(rows.items())
        while waiting:
            group, waiting = dict(waiting[: args.ahead]), waiting[args.ahead :]
            with TemporaryDirectory() as folder:
                caches = caches_in(folder) if args.device == "cpu" else {}
                if caches:
                    with running(script, group, args, caches) as sides:
                        group = {
                            row: {name: side.spec for name, side in ran.items()}
                            for row, ran in sides.items()
                        }
                with running(script, group, args, caches) as sides:
                    for row, ran in sides.items():
                        measured[title][row] = numbers = measure(ran, args)
                        print(describe(row, numbers), flush=True)
        names = [row for row in rows if row in averaged] or list(rows)
        means = [mean_ratio(measured[title], unit, names) for unit in UNITS]
        print(f"  {'mean':10} {in_words(means)}  ({' '.join(names)})")
    return measured


def save_if_asked(args, name, packages, measured, **content):
    """Writes `results/NAME.json`, or `NAME_pools.json`."""
    if args.save:
        name += "" if args.malloc == "default" else f"_{args.malloc}"
        how = {name: getattr(args, name) for name in ("malloc", "rounds", "calls")}
        device = None if args.device == "cpu" else gpu()
        path = save(name, packages, device, **how, **content, measured=measured)
        print(f"written to {path}")


def gpu():
    """What the GPU calls itself."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.check_output(query, text=True).splitlines()[0].strip()


def describe(row, numbers):
    each = ", ".join(
        f"{name} {values[TIME]:.2f} ms {values[MEMORY]:.0f} MB" for name, values in numbers.items()
    )
    return f"  {row:10} {in_words([ratio(numbers, unit) for unit in UNITS])}  {each}"


def in_words(ratios):
    return "time {:.2f}  memory {:.2f}".format(*ratios)


def ratio(numbers, unit):
    """Ours over the best of the others (below 1 we are better); nan if there is nothing beside."""
    others = [values[unit] for name, values in numbers.items() if name != OURS]
    return numbers[OURS][unit] / min(others) if OURS in numbers and others else math.nan


def mean_ratio(rows, unit, names):
    """The geometric mean of the ratios of these rows; nan if one of them is missing."""
    ratios = [ratio(rows[name], unit) if name in rows else math.nan for name in names]
    return statistics.geometric_mean(ratios) if all(map(math.isfinite, ratios)) else math.nan
