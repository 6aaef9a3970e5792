"""What a GPU spends our training steps on: milliseconds by kind of kernel, and shares of its peaks.

    python benchmarks/kernels.py --save                  # writes JSON to results/; prints the table

Every model of `train_step.py` in batches of 512. The kernels' times are those of jax's profiler;
FLOPs are counted in the jaxpr, bytes by XLA in the compiled program (what its fusions read and
write). Peaks are measured: a large matrix product in the dtype, and a pass over some gigabytes.
"""

import argparse
import json
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import peers
from record import RESULTS, save
from train_step import as_is, state_and_batch
from turns import gpu

CALLS = 10
PASSED = 2**30  # float32 numbers, of the pass over memory
# The first that a kernel's name matches.
KINDS = {
    "attention": r"cudnn.*(sdpa|flash|dot_do_o|convert_dq)|fmha",
    "convolutions": r"conv(?!ert)|winograd|implicit|dgrad|wgrad",
    "products": r"gemm|cutlass|nvjet|xmma|cublas|dot",
    "Fourier": r"fft",
    "reductions": r"reduc|softmax|argm",
    "copies": r"copy|copies|transpose|memcpy|memset|concatenate|pad|slice",
    "elementwise": r"",
}


def measure(name, patch_size, dtype, compiled, state, data, flops):
    """One line of the table, a dict."""
    import jax

    from vix_flax.preflight import bytes_needed
    from vix_flax.timing import Pace, median_seconds

    def step():
        nonlocal state
        state, metrics = compiled(state, data)
        return state, metrics

    seconds, _ = median_seconds(step, Pace(calls=CALLS))
    with tempfile.TemporaryDirectory() as folder:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(CALLS):
                jax.block_until_ready(step())
        kernels = kernel_seconds(next(Path(folder).rglob("*.xplane.pb")))
    by_kind = dict.fromkeys(KINDS, 0.0)
    for kernel, took in kernels.items():
        by_kind[kind_of(kernel)] += 1e3 * took / CALLS
    return {
        "model": name,
        "patch_size": patch_size,
        "dtype": dtype,
        "milliseconds": 1e3 * seconds,
        "kernels": by_kind,
        "flops": flops,
        "bytes": compiled.cost_analysis()["bytes accessed"],
        "megabytes": bytes_needed(compiled) / 1e6,
    }


def kernel_seconds(path):
    """{kernel: seconds in all} of a GPU's streams in a profile."""
    from jax.profiler import ProfileData

    seconds = {}
    for plane in ProfileData.from_file(str(path)).planes:
        for line in plane.lines if plane.name.startswith("/device:GPU") else ():
            for event in line.events if line.name.startswith("Stream") else ():
                seconds[event.name] = seconds.get(event.name, 0) + event.duration_ns / 1e9
    return seconds


def kind_of(kernel):
    return next(kind for kind, names in KINDS.items() if re.search(names, kernel, re.I))


def program(name, patch_size, dtype, batch):
    """What `measure` takes, compiled later."""
    from vix_flax.flops import count_flops
    from vix_flax.training import train_step

    fields = peers.fields(name, patch_size)
    state, data = state_and_batch(name, fields, batch, dtype, mesh=None)
    traced = train_step.trace(state, data, augment=as_is)
    return traced.lower(), state, data, count_flops(traced.jaxpr)


def memory_peak():
    """Bytes a second of a pass that reads and writes."""
    import jax
    import jax.numpy as jnp

    from vix_flax.timing import Pace, median_seconds

    call = partial(jax.jit(lambda x: x + 1), jnp.zeros(PASSED, jnp.float32))
    return 2 * 4 * PASSED / median_seconds(call, Pace(calls=5))[0]


def table(result):
    """A line for each model, for each dtype: milliseconds of a step, its shares of the two peaks,
    and what most of its time goes into."""
    by_model = {}
    for row in result["steps"]:
        by_model.setdefault(row["model"], {})[row["dtype"]] = row
    dtypes = [dtype for dtype in peers.DTYPES if dtype in result["peaks"]]
    columns = ["ms", "of the matmul peak", "of the memory's", "most of it"]
    header = [f"train step, batch {result['batch']}"]
    header += [
        f"{dtype}: {columns[0]}" if i == 0 else column
        for dtype in dtypes
        for i, column in enumerate(columns)
    ]
    lines = [header, ["---", *["---:", "---:", "---:", "---"] * len(dtypes)]]
    for model, rows in by_model.items():
        cells = [described(rows[dtype], result["peaks"]) for dtype in dtypes]
        lines.append([f"`{model}`", *(cell for each in cells for cell in each)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def described(row, peaks):
    """The cells of one model in one dtype."""
    whole = row["milliseconds"]
    spent = {**row["kernels"], "between kernels": whole - sum(row["kernels"].values())}
    most = sorted(spent, key=spent.get, reverse=True)[:2]
    return (
        f"{whole:.1f}",
        f"{1e3 * row['flops'] / whole / peaks[row['dtype']]:.0%}",
        f"{1e3 * row['bytes'] / whole / peaks['memory']:.0%}",
        ", ".join(f"{kind} {spent[kind] / whole:.0%}" for kind in most),
    )


def saved_table(name):
    return table(json.loads((RESULTS / f"{name}.json").read_text()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=peers.PEERS, default=list(peers.PEERS))
    parser.add_argument("--patch-size", type=int, default=4, help=f"of {', '.join(peers.FIVE)}")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--dtypes", nargs="+", choices=peers.DTYPES, default=peers.DTYPES)
    parser.add_argument("--save", action="store_true", help="writes JSON to benchmarks/results/")
    args = parser.parse_args()
    from vix_flax.bench import matmul_peak

    lines = [(name, args.patch_size, dtype) for dtype in args.dtypes for name in args.models]
    with ThreadPoolExecutor() as pool:
        programs = [program(*line, args.batch) for line in lines]
        compiled = pool.map(lambda program: program[0].compile(), programs)
        ready = [(c, *rest) for c, (_, *rest) in zip(compiled, programs, strict=True)]
    peaks = {dtype: matmul_peak(dtype, 1) for dtype in args.dtypes} | {"memory": memory_peak()}
    steps = [measure(*line, *given) for line, given in zip(lines, ready, strict=True)]
    result = {"batch": args.batch, "peaks": peaks, "steps": steps}
    print(table(result))
    if args.save:
        packages = ("vix_flax", "jax", "jaxlib", "flax")
        name = f"kernels_gpu_patch{args.patch_size}"
        print(f"written to {save(name, packages, gpu(), **result)}")


if __name__ == "__main__":
    main()
