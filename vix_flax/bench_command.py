"""`vix bench` and `vix bench scale`: measure, and print what was measured."""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from rich import progress as bars
from rich.console import Console
from rich.table import Table

from vix_flax.flags import parse_assignments
from vix_flax.show import out

WIDEST = 120  # columns of a table
SHARE = 0.75  # of the memory that is there, for a point of `vix bench scale`


def bench_command(args: argparse.Namespace) -> int:
    """`vix bench MODEL…`: training and inference of each, as a table and as JSON."""
    from vix_flax.bench import checked_model, matmul_peak, measure_model
    from vix_flax.cores import use_all_cores
    from vix_flax.host_memory import keep_freed_memory
    from vix_flax.run_folder import write_aside
    from vix_flax.timing import Pace, about

    _require_positive(args, "batch_size", "calls", "seconds")
    if args.json and not Path(args.json).absolute().parent.is_dir():
        raise ValueError(f"--json {args.json}: there is no such folder")
    use_all_cores()
    keep_freed_memory()
    fields = parse_assignments(args.set)
    models = {name: checked_model(name, fields) for name in dict.fromkeys(args.models)}
    machine, peaks, rows = about(), {}, []
    with Steps(2 * len(models)) as steps:
        for name, (model, params) in models.items():
            dtype = str(getattr(model, "dtype", None) or "float32")
            if dtype not in peaks:
                steps.begin(f"measuring a matrix product in {dtype}")
                peaks[dtype] = matmul_peak(dtype, args.batch_size)
            steps.begin(f"compiling and measuring {name}")
            for speed in measure_model(model, args.batch_size, Pace(args.calls, args.seconds)):
                steps.done()
                rates = {
                    "images_per_second": speed.images_per_second,
                    "share_of_peak": speed.share_of(peaks[dtype]),
                }
                rows.append({"model": name, "parameters": params, **vars(speed), **rates})
    shared = f" on {rows[0]['devices']} devices" if rows[0]["devices"] > 1 else ""
    _show(_speeds(rows, f"{machine['device']}: {args.batch_size} images a call{shared}"))
    for row in rows:
        if row["left_out"]:
            out.print(f"{row['model']}, {row['task']} is left out: {row['left_out']}")
    for dtype, peak in peaks.items():
        out.print(f"Peak: {peak / 1e9:,.0f} GFLOP/s, a matrix product in {dtype} here and now.")
    out.print("FLOPs of one image; memory of all devices together, parameters and batch included.")
    if args.json:
        content = {**machine, "peak_flops_per_second": peaks, "results": rows}
        write_aside(Path(args.json), json.dumps(content, indent=2) + "\n")
    return 0


def _speeds(rows, title):
    numbers = ("parameters", "images/s", "ms", "of peak", "MFLOPs", "MiB", "compiled in")
    table = _table(title, ("model", ""), numbers)
    for row in rows:
        first = row["task"] == "training"
        table.add_row(
            row["model"] if first else "",
            row["task"],
            f"{row['parameters']:,}" if first else "",
            _number(row["images_per_second"]),
            _number(row["seconds"], 1e3),
            "–" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}",
            _number(row["flops"], 1e-6),
            _number(row["bytes"], 2**-20),
            f"{row['compile_seconds']:.1f} s",
        )
    return table


def scale_command(args: argparse.Namespace) -> int:
    """`vix bench scale`: every attention against tokens, as tables, CSV files and a picture."""
    from vix_flax.host_memory import keep_freed_memory
    from vix_flax.preflight import GIB, bytes_there
    from vix_flax.run_folder import write_aside
    from vix_flax.scale import MIXES, Limits, Sizes, check_mixes, measure_mix, parse_tokens
    from vix_flax.scale_report import fits, plot_scale, write_rows
    from vix_flax.timing import about

    _require_positive(args, "memory_limit", "point_seconds", "seconds")
    names = list(MIXES)
    if args.attentions is not None:
        names = list(dict.fromkeys(name.strip() for name in args.attentions.split(",")))
    tokens = parse_tokens(args.tokens)
    sizes = Sizes(args.batch_size, args.heads, args.dim_head, args.dtype)
    check_mixes(names, sizes)
    folder = Path(args.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {folder} cannot be written: {error.strerror}") from None
    keep_freed_memory()
    most = bytes_there(args.memory_limit)
    limits = Limits(most if args.memory_limit else int(SHARE * most), args.point_seconds)
    machine, points = about(), []
    with Steps(len(names) * len(tokens)) as steps:
        for name in names:
            steps.begin(f"compiling and measuring {name}")
            for point in measure_mix(name, tokens, sizes, limits, args.seconds):
                steps.done()
                points.append(point)
            write_rows(folder / "points.csv", points)  # an interrupt leaves what there is
    shape = f"batch {sizes.batch}, {sizes.heads} heads of {sizes.dim_head}, {sizes.dtype}"
    _print_points(points, fits(points), f"{machine['device']}; {shape}")
    write_rows(folder / "fits.csv", fits(points))
    content = {**machine, **vars(sizes), "memory_limit_gib": limits.bytes / GIB}
    write_aside(folder / "about.json", json.dumps(content, indent=2) + "\n")
    title = f"{machine['device']}, {machine['date']}; {shape}"
    plot_scale(folder / "scale.png", points, title)
    out.print(f"{folder}: points.csv, fits.csv, about.json and the picture scale.png")
    return 0


def _print_points(points, fits, title):
    from vix_flax.scale_report import curve

    out.print(f"Forward and backward on {title}")
    tokens = sorted({point.tokens for point in points})
    headings = [f"{n:,}" for n in tokens]
    for measure, unit, text, power, crossed in (
        ("seconds", 1e3, "ms at … tokens", "time", "faster_from"),
        ("bytes", 2**-20, "MiB at … tokens", "memory", "smaller_from"),
        ("flops", 1e-6, "MFLOPs at … tokens", None, None),
    ):
        fitted = ["exponent", "below softmax from"] if power else []
        table = _table(text, ("attention",), (*headings, *fitted))
        for fit in fits:
            values = curve(points, fit.attention, measure)
            row = [_number(values.get(n), unit) for n in tokens]
            if power:
                x, where = getattr(fit, power), getattr(fit, crossed)
                row += ["–" if x is None else f"{x:.2f}", _crossing(where, tokens[0])]
            table.add_row(fit.attention, *row)
        _show(table)
    for point in points:
        if point.left_out:
            out.print(f"{point.attention}, {point.tokens:,} tokens left out: {point.left_out}")


def _crossing(where, first):
    if where is None:
        return "–"
    return f"≤ {first:,}" if where <= first else f"{where:,.0f}"


def _number(value, unit=1):
    """Three digits, or whole if it is larger."""
    if value is None:
        return "–"
    value *= unit
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(title: str, words: Iterable[str], numbers: Iterable[str]) -> Table:
    table = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for heading in words:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _show(table: Table) -> None:
    """Rows that are too long for a narrow terminal go on in the next line, whole."""
    Console(highlight=False, soft_wrap=True, width=max(out.width, WIDEST)).print(table)


def _require_positive(args, *names):
    for name in names:
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be positive")


class Steps:
    """A bar in a terminal, a line for each beginning elsewhere."""

    def __init__(self, total: int):
        self.bar = bars.Progress(console=out, transient=True, disable=not out.is_terminal)
        self.task = self.bar.add_task("", total=total)

    def __enter__(self):
        self.bar.start()
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def begin(self, text: str) -> None:
        """Says what is done now."""
        self.bar.update(self.task, description=text)
        if not out.is_terminal:
            out.print(f"{text} …", style="dim")

    def done(self) -> None:
        """One of the total."""
        self.bar.update(self.task, advance=1)
