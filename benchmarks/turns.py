"""The sides of a comparison take turns, each in a process of its own: times, memory, ratios.

`compare` starts a script again for each side with `--worker SPEC`; there the script calls `serve`.
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

from record import save

OURS = "ours"
TIME, MEMORY = UNITS = "milliseconds", "megabytes"
WARM_UP = 3  # calls
# What every side's process is started with. "pools": glibc keeps freed memory, in huge pages.
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
    parser.add_argument("--calls", type=int, default=calls, help="calls a turn")
    parser.add_argument("--malloc", choices=MALLOC, default="default", help="of every side")
    parser.add_argument("--save", action="store_true", help="writes JSON to benchmarks/results/")
    parser.add_argument("--worker", type=json.loads, metavar="SPEC", help=argparse.SUPPRESS)
    return parser


def serve(load, build):
    """One side's process: `load` imports, `build` returns the call that is measured.

    Answers each line on stdin: a number of calls with their seconds, "memory" with the most bytes
    that calls take, more than after the imports.
    """
    load()
    imported = pages()["RssAnon"]
    call = build()
    for _ in range(WARM_UP):
        call()
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "memory":
            answer = peak(call) - imported
        else:
            answer = [timed(call) for _ in range(int(line))]
        print(json.dumps(answer), flush=True)


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


@contextmanager
def side(script, spec, malloc):
    """A function that asks this side's process, which has warmed up."""
    process = subprocess.Popen(
        [sys.executable, script, "--worker", json.dumps(spec)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environ, **MALLOC[malloc]},
    )

    def ask(line):
        print(line, file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    try:
        if process.stdout.readline().strip() != "ready":
            raise SystemExit(f"could not run {spec}")
        yield ask
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait()


def measure(script, specs, args):
    """{side: {each of UNITS}} for {side: spec}: medians of calls, taking turns (A B A B)."""
    seconds = {name: [] for name in specs}
    with ExitStack() as stack:
        asks = {
            name: stack.enter_context(side(script, spec, args.malloc))
            for name, spec in specs.items()
        }
        for _ in range(args.rounds):
            for name, ask in asks.items():
                seconds[name] += ask(args.calls)
        megabytes = {name: ask("memory") / 1e6 for name, ask in asks.items()}
    return {
        name: dict(zip(UNITS, (1e3 * statistics.median(taken), megabytes[name]), strict=True))
        for name, taken in seconds.items()
    }


def compare(script, specs, args, averaged=()):
    """Measures {title: {row: {side: spec}}}, printing each row; the same with numbers for specs.

    Printed is also the geometric mean of the ratios, of the `averaged` rows (of all).
    """
    measured = {}
    for title, rows in specs.items():
        print(title, flush=True)
        measured[title] = {}
        for row, sides in rows.items():
            measured[title][row] = numbers = measure(script, sides, args)
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
        print(f"written to {save(name, packages, **how, **content, measured=measured)}")


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
