"""The commands that look: `vix list`, `vix summary`, `vix attention`."""

import argparse
import ast
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vix_flax.suggest import did_you_mean

out = Console(highlight=False, markup=False, soft_wrap=True)


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """["dim=64", "pool=mean"] -> {"dim": 64, "pool": "mean"}: Python literals, else strings.

    Raises:
        ValueError: one has no `=`.
    """
    fields = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ValueError(f"--set {assignment!r} must be FIELD=VALUE")
        fields[name] = {"true": True, "false": False, "none": None}.get(text.lower(), text)
        with contextlib.suppress(ValueError, SyntaxError):
            fields[name] = ast.literal_eval(text)
    return fields


def list_command(args: argparse.Namespace) -> int:
    """`vix list [PATTERN]`."""
    from vix_flax.presets import PRESETS, list_models

    names = list_models(args.pattern)
    if not names:
        raise ValueError(f"no model matches {args.pattern!r}" + did_you_mean(args.pattern, PRESETS))
    if args.grid:
        print_grid(names)
        return 0
    width = max(map(len, names))
    for name in names:
        out.print(f"{name:{width}}  {PRESETS[name][0].__doc__.splitlines()[0]}")
    return 0


def print_grid(names: Sequence[str]) -> None:
    """Models × attentions, with a numbered line for each thing to know."""
    from vix_flax.attention import ATTENTIONS
    from vix_flax.presets import attention_grid

    width = max(map(len, names))
    out.print(" " * width, *ATTENTIONS, sep="  ")
    remarks: dict[str, int] = {}
    for name, cells in attention_grid(names).items():
        row = [f"{name:{width}}"]
        for attention, (works, remark) in cells.items():
            number = remarks.setdefault(remark, len(remarks) + 1) if remark else ""
            row.append(f"{'✓' if works else '–'} {number}".ljust(len(attention)))
        out.print(*row, sep="  ")
    for remark, number in remarks.items():
        out.print(f"{number}  {remark}")


def summary_command(args: argparse.Namespace) -> int:
    """`vix summary MODEL`."""
    from vix_flax.inspect import summarize
    from vix_flax.presets import create_model

    if args.depth < 0:
        raise ValueError(f"--depth {args.depth} must be at least 0")
    model = create_model(args.model, **parse_assignments(args.set))
    parts = summarize(model, args.depth)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("part")
    table.add_column("module")
    for heading in ("output", "parameters", "MFLOPs"):
        table.add_column(heading, justify="right")
    for part in parts:
        shape = " × ".join(map(str, part.shape[1:]))
        row = (part.module, shape, f"{part.params:,}", f"{part.flops / 1e6:,.1f}")
        table.add_row(part.path or args.model, *row, style="bold" if not part.path else "")
    out.print(table)
    out.print("Outputs are rows × columns × width, or tokens × width; FLOPs of one image, forward.")
    for note in model.notes:
        out.print(f"Note: {note}.")
    return 0


def attention_command(args: argparse.Namespace) -> int:
    """`vix attention RUN IMAGE`: a picture of what each layer and head attends to."""
    import jax.numpy as jnp
    import numpy as np

    from vix_flax.attention_maps import attention_maps, attention_rollout
    from vix_flax.data import read_image
    from vix_flax.run import Run
    from vix_flax.training.plots import plot_attention

    run = Run.load(args.folder)
    image = read_image(args.image, run.image_shape)
    maps = attention_maps(run.model, run.variables, run.augment(jnp.asarray(image[None])))
    layers = [np.asarray(m[0]) for m in maps] if isinstance(maps, tuple) else np.asarray(maps[0])
    # What the class token attends to; without one, what all tokens do on average.
    has_class_token = bool(getattr(run.model, "class_token", False))
    rollout = None
    if not isinstance(maps, tuple) and maps.shape[-1] == maps.shape[-2]:
        rollout = np.asarray(attention_rollout(maps)[0])[None]

    def picture(heads):
        """(h, n, m) -> (h, rows, columns) over the image, or None."""
        rows = heads[:, 0] if has_class_token or heads.shape[1] == 1 else heads.mean(axis=1)
        for rows_, columns in run.model.grids or [run.image_shape[:2]]:
            first = rows.shape[-1] - rows_ * columns
            if first in (0, 1):
                return rows[:, first:].reshape(-1, rows_, columns)
        return None

    pictures = [picture(heads) for heads in layers]
    if all(p is None for p in pictures):
        raise ValueError(f"{run.config.model}: its maps do not lie on the image as a grid")
    path = Path(args.output or Path(args.image).with_suffix(".attention.png").name)
    rolled = None if rollout is None else picture(rollout)
    title = f"{run.config.model} on {Path(args.image).name}"
    plot_attention(path, image, pictures, rolled, title)
    out.print(
        f"{path}: {len(pictures)} layers" + (" and their rollout" if rolled is not None else "")
    )
    return 0
