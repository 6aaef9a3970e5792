"""Keeps what `vix bench scale` has measured: its points as JSON, a table, a picture.

    vix bench scale --output DIR
    python benchmarks/scale.py DIR       # writes results/scale_cpu.json and draws it

`python benchmarks/tables.py` then puts the table into README.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from record import RESULTS, save, three_digits

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
    tokens = [point.tokens for point in points]
    fewest, most = min(tokens), max(tokens)
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
        crossing = ""
        if fit.faster_from is not None:
            at_most = "≤ " * (fit.faster_from <= fewest)
            crossing = f"{at_most}{fit.faster_from:,.0f} tokens"
        lines.append(
            f"| `{fit.attention}` | {three_digits(time)} | {fit.time:.2f} | {memory:,.0f} "
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
    name = f"scale_{about['platform']}"
    name += "" if about["dtype"] == "float32" else f"_{about['dtype']}"
    there = {"date": about["date"], "machine": about["device"], "versions": about["versions"]}
    path = save(name, **there, about=about, points=points)
    plot(path.stem)
    print(saved_table(path.stem))


if __name__ == "__main__":
    main()
