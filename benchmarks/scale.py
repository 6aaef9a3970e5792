"""Keeps what `vix bench scale` has measured: its points as JSON, a table, a picture.

    vix bench scale --output DIR
    python benchmarks/scale.py DIR       # writes results/scale_cpu.json and draws it

`python benchmarks/tables.py` then puts the table into README.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from record import RESULTS, save

from vix_flax.scale import Point
from vix_flax.scale_report import curve, fits, plot_scale, read_points

UNITS = {"seconds": 1e3, "bytes": 2**-20}


def read(name):
    """The result, and its points."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    return result, [Point(**point) for point in result["points"]]


def saved_table(name):
    """Milliseconds and MiB at the most tokens, and how both grow."""
    _, points = read(name)
    most = max(point.tokens for point in points)
    lines = [
        f"| forward and backward | ms at {most:,} tokens | time ∝ nˣ, x | MiB | memory ∝ nˣ, x "
        "| faster than softmax from |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for fit in fits(points):
        time, memory = (
            curve(points, fit.attention, measure).get(most, 0) * unit
            for measure, unit in UNITS.items()
        )
        crossing = "" if fit.faster_from is None else f"{fit.faster_from:,.0f} tokens"
        lines.append(
            f"| `{fit.attention}` | {time:,.0f} | {fit.time:.2f} | {memory:,.0f} "
            f"| {fit.memory:.2f} | {crossing} |"
        )
    return "\n".join(lines)


def plot(name, folder=RESULTS):
    """`NAME.png`: time, memory and FLOPs against tokens."""
    result, points = read(name)
    shape = "batch {batch}, {heads} heads of {dim_head}, {dtype}".format(**result["about"])
    title = f"{result['machine']}, {result['date']}; {shape}"
    plot_scale(Path(folder) / f"{name}.png", points, title)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that vix bench scale has written")
    folder = parser.parse_args().folder
    about = json.loads((folder / "about.json").read_text())
    points = [dataclasses.asdict(point) for point in read_points(folder / "points.csv")]
    name = f"scale_{about['platform']}" + (
        "" if about["dtype"] == "float32" else "_" + about["dtype"]
    )
    device = "CPU" if about["platform"] == "cpu" else about["device"]
    path = save(name, ("vix_flax", "jax"), device, about=about, points=points)
    plot(path.stem)
    print(saved_table(path.stem))


if __name__ == "__main__":
    main()
