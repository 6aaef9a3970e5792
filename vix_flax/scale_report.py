"""What measured points say: exponents, crossovers with softmax, a CSV file, a picture."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vix_flax.run_folder import write_aside
from vix_flax.scale import Point

ASYMPTOTIC = 1024  # tokens from which on constant costs no longer hide the exponent
MEASURES = ("seconds", "bytes", "flops")


@dataclasses.dataclass(frozen=True)
class Fit:
    """How one attention grows; None where too few points were measured, or where it never crosses.

    Attributes:
        attention: its name.
        time: x of seconds ∝ tokensˣ.
        memory: x of bytes ∝ tokensˣ.
        faster_from: tokens from which on it takes less time than softmax.
        smaller_from: tokens from which on it takes less memory than softmax.
    """

    attention: str
    time: float | None
    memory: float | None
    faster_from: float | None
    smaller_from: float | None


def fits(points: Sequence[Point]) -> list[Fit]:
    """One for each attention, in the order of the points."""
    first = fitted_from([point.tokens for point in points])
    softmax = {measure: curve(points, "softmax", measure) for measure in MEASURES}

    def fit(name):
        time, memory = (curve(points, name, measure) for measure in ("seconds", "bytes"))
        return Fit(
            name,
            exponent(time, first),
            exponent(memory, first),
            crossover(time, softmax["seconds"]) if name != "softmax" else None,
            crossover(memory, softmax["bytes"]) if name != "softmax" else None,
        )

    return [fit(name) for name in dict.fromkeys(point.attention for point in points)]


def curve(points: Iterable[Point], attention: str, measure: str) -> dict[int, float]:
    """{tokens: seconds, bytes or FLOPs}, in rising order, without what was left out.

    Args:
        points: of any attentions.
        attention: whose.
        measure: one of `MEASURES`; FLOPs are known of points that were left out, too.
    """
    found = {p.tokens: getattr(p, measure) for p in points if p.attention == attention}
    return {n: value for n, value in sorted(found.items()) if value is not None}


def fitted_from(tokens: Iterable[int]) -> int:
    """The least number of tokens that counts for the exponent.

    1,024 if two numbers are at least that, else the first of the upper half.
    """
    tokens = sorted(set(tokens))
    if sum(n >= ASYMPTOTIC for n in tokens) >= 2:
        return ASYMPTOTIC
    return tokens[max(0, min(len(tokens) // 2, len(tokens) - 2))]


def exponent(values: Mapping[int, float], first: int = 0) -> float | None:
    """x of value ∝ tokensˣ, by least squares of logarithms; None for fewer than two points."""
    there = [(n, value) for n, value in values.items() if n >= first]
    if len(there) < 2:
        return None
    return float(np.polyfit(*np.log(np.array(there, float)).T, 1)[0])


def crossover(values: Mapping[int, float], other: Mapping[int, float]) -> float | None:
    """Tokens from which on `values` stay below `other`, linear between points in logarithms.

    The first number of tokens if they always are; None if they are not at the last.
    """
    common = sorted(set(values) & set(other))
    ratios = [float(np.log(values[n] / other[n])) for n in common]
    if not common or ratios[-1] >= 0:
        return None
    above = [i for i, ratio in enumerate(ratios) if ratio >= 0]
    if not above:
        return float(common[0])
    i = above[-1]
    share = ratios[i] / (ratios[i] - ratios[i + 1])
    return float(common[i] * (common[i + 1] / common[i]) ** share)


def write_rows(path: Path, rows: Sequence[Point | Fit]) -> None:
    """Points or fits as a CSV file; what is not known is empty."""
    text = io.StringIO(newline="")
    names = [field.name for field in dataclasses.fields(rows[0])]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
    write_aside(path, text.getvalue())


def read_points(path: Path) -> list[Point]:
    """What `write_rows` wrote of points."""
    number = lambda kind, text: kind(text) if text else None
    with path.open(newline="") as file:
        return [
            Point(
                row["attention"],
                int(row["tokens"]),
                int(row["flops"]),
                number(int, row["bytes"]),
                number(float, row["seconds"]),
                row["left_out"],
            )
            for row in csv.DictReader(file)
        ]


def plot_scale(path: Path, points: Sequence[Point], title: str) -> None:
    """Time, memory and FLOPs against tokens, axes logarithmic, a line for each attention, as PNG.

    The legend, beside the axes, gives the exponents of time and memory.
    """
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(15, 5), layout="constrained")
    figure.suptitle(title)
    known = fits(points)
    tokens = sorted({point.tokens for point in points})
    panels = (
        ("seconds", 1e3, "ms, forward and backward"),
        ("bytes", 2**-20, "MiB, arguments included"),
        ("flops", 1e-9, "GFLOP, forward and backward"),
    )
    for axes, (measure, unit, label) in zip(figure.subplots(1, 3), panels, strict=True):
        lines = []
        for i, fit in enumerate(known):
            there = curve(points, fit.attention, measure)
            style = dict(color=f"C{i % 10}", marker="osD^vP*Xhp"[i % 10], markersize=5, alpha=0.85)
            scaled = [value * unit for value in there.values()]
            lines += axes.plot(list(there), scaled, linewidth=1.6, **style)
        axes.set(xscale="log", yscale="log", xlabel="tokens", title=label)
        axes.set_xticks(tokens, [f"{n:,}" for n in tokens])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    exponents = [f"{f.attention}  {_power(f.time)} · {_power(f.memory)}" for f in known]
    figure.legend(lines, exponents, loc="outside right center", title="exponents: time · memory")
    figure.savefig(path, dpi=120)


def _power(x):
    return "–" if x is None else f"{x:.2f}"
