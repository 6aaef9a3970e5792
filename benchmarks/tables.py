"""Saved results as Markdown tables and as pictures: `python benchmarks/tables.py [NAME ...]`.

Where README.md has `<!-- results: NAME -->` … `<!-- end -->`, the table is put between them; the
others are printed. Each result gets a picture beside its JSON, as SVG and as PNG.
"""

import argparse
import json
import math
import re
from pathlib import Path

import epochs
import kernels
import scale
from peers import FIVE
from record import RESULTS, three_digits
from turns import MEMORY, OURS, TIME, mean_ratio, ratio

README = Path(__file__).parent.parent / "README.md"
MARKED = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.S)
CALLED = {
    OURS: "vix_flax",
    "torch": "torch",
    "torch_compile": "torch, compiled",
    "torch_sdpa": "torch, its own attention function",
}
# Scripts whose results have tables of their own.
OWN = {"epochs": epochs, "kernels": kernels, "scale": scale}
RATIOS = {
    TIME: "**time, ours / the fastest of torch**",
    MEMORY: "memory, ours / the least of torch",
}


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def saved_names():
    """Results that were measured in turns; others have tables of their own scripts."""
    return [path.stem for path in sorted(RESULTS.glob("*.json")) if "measured" in read(path.stem)]


def saved_table(name):
    if own := OWN.get(name.partition("_")[0]):
        return own.saved_table(name)
    return "\n\n".join(table(title, rows) for title, rows in read(name)["measured"].items())


def table(title, rows):
    """A column for each row of a comparison, a line for each side; then the ratios."""
    mean = math.isfinite(mean_ratio(rows, TIME, FIVE))
    columns = [f"`{name}`" for name in rows] + ["mean of five"] * mean
    lines = [[title, *columns], ["---", *["---:"] * len(columns)]]
    sides = [side for side in CALLED if any(side in numbers for numbers in rows.values())]
    for side in sides:
        times = [
            three_digits(numbers[side][TIME]) if side in numbers else ""
            for numbers in rows.values()
        ]
        lines.append([f"{CALLED[side]}, ms", *times, *[""] * mean])
    for unit, label in RATIOS.items():
        ratios = [ratio(numbers, unit) for numbers in rows.values()]
        ratios += [mean_ratio(rows, unit, FIVE)] * mean
        lines.append([label, *(f"{value:.2f}" for value in ratios)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def filled(text):
    """A text with the saved tables between its markers."""
    return MARKED.sub(lambda match: match[1] + saved_table(match[2]) + "\n" + match[3], text)


def plot(name, folder=RESULTS):
    """`NAME.svg` and `NAME.png`: the ratios of each row, of time and of memory, and a line at 1."""
    import matplotlib
    from matplotlib.figure import Figure

    result = read(name)
    measured = result["measured"]
    rows = list(next(iter(measured.values())))[::-1]
    matplotlib.rcParams.update({"svg.hashsalt": name, "svg.fonttype": "none"})
    figure = Figure(figsize=(8, 1.6 + 0.3 * len(rows)), layout="constrained")
    figure.suptitle(f"{name} ({result['machine']}, {result['date']})", fontsize=9)
    for axes, unit in zip(figure.subplots(1, 2, sharey=True), (TIME, MEMORY), strict=True):
        for title, numbers in measured.items():
            values = [ratio(numbers[row], unit) for row in rows]
            axes.plot(values, range(len(rows)), "o", label=title, alpha=0.8)
        axes.axvline(1, color="black", linewidth=1)
        axes.plot([0.5, 2], [0, 0], alpha=0)  # at least from half to twice
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g} ×")
        axes.set_yticks(range(len(rows)), rows)
        axes.grid(alpha=0.3)
        axes.set(ylim=(-0.6, len(rows) - 0.4), xlabel=RATIOS[unit].strip("*"))
    figure.legend(
        *axes.get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=2
    )
    for form, options in {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 110}}.items():
        figure.savefig(Path(folder) / f"{name}.{form}", **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of results (default: all)")
    names = parser.parse_args().names or saved_names()
    text = README.read_text()
    marked = {match[2] for match in MARKED.finditer(text)}
    for name in names:
        plot(name)
        if name not in marked:
            print(f"{name}\n\n{saved_table(name)}\n")
    if filled(text) != text:
        README.write_text(filled(text))
        print(f"{README.name}: tables of {', '.join(sorted(marked))}")


if __name__ == "__main__":
    main()
