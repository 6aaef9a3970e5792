"""The commands that look: `vix list`, `summary`, `data`, `augment`, `attention`, `compare`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from vix_flax.flags import parse_assignments
from vix_flax.suggest import did_you_mean

out = Console(highlight=False, markup=False, soft_wrap=True)


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
    from vix_flax.data import read_image
    from vix_flax.run import Run
    from vix_flax.training.plots import plot_attention

    run = Run.load(args.folder)
    image = read_image(args.image, run.image_shape)
    layers, rollout = run.attention(image)
    path = Path(args.output or Path(args.image).with_suffix(".attention.png").name)
    title = f"{run.config.model} on {Path(args.image).name}"
    plot_attention(path, image, layers, rollout, title)
    rolled = "" if rollout is None else " and their rollout"
    out.print(f"{path}: {len(layers)} layers{rolled}")
    return 0


def data_command(args: argparse.Namespace) -> int:
    """`vix data list`, `vix data prepare NAME`, `vix data info NAME`, `vix data show NAME`."""
    import inspect

    from vix_flax.data import DATASETS, load_dataset
    from vix_flax.data.download import ARCHIVES
    from vix_flax.data.prepared import prepare
    from vix_flax.training.plots import plot_images

    if args.action == "list":
        for name, load in DATASETS.items():
            out.print(f"{name:15}{inspect.getdoc(load).splitlines()[0]}")
        return 0
    if args.name is None:
        raise ValueError(f"vix data {args.action} needs the NAME of a data set (vix data list)")
    if args.action == "prepare" and args.name in ARCHIVES:
        folder = prepare(args.name, args.data_dir)
        out.print(f"{args.name} is prepared in {folder}")
        return 0
    options = {"img_size": args.img_size, "on_bad_image": args.on_bad_image}
    data = load_dataset(args.name, args.data_dir, **options)
    if args.action == "prepare":
        count = len(data.train) + len(data.val) + len(data.test)
        out.print(f"{data.name}: {count:,} images can be read")
        return 0
    if args.action == "info":
        shape = " × ".join(map(str, data.image_shape))
        out.print(f"{data.name}: {len(data.classes)} classes, images {shape}")
        for name in ("train", "val", "test"):
            counts = np.bincount(getattr(data, name).labels, minlength=len(data.classes))
            low, high = counts.min(), counts.max()
            each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            out.print(f"{name:6}{counts.sum():>9,} images, {each} a class")
        for name, values in (("mean", data.mean), ("std", data.std)):
            out.print(f"{name:6}" + "  ".join(f"{value:.4f}" for value in values))
        out.print("classes: " + ", ".join(data.classes))
        return 0
    shown = range(min(len(data.classes), 12))
    rows = [data.train.images[np.flatnonzero(data.train.labels == label)[:10]] for label in shown]
    path = Path(args.output or f"{data.name}.png")
    plot_images(path, rows, [data.classes[label] for label in shown])
    out.print(f"{path}: the first images of {len(shown)} of {len(data.classes)} classes")
    return 0


def compare_command(args: argparse.Namespace) -> int:
    """`vix compare RUN RUN…`: a table, and a picture of accuracy against epochs and time."""
    from vix_flax.compare import History, labels
    from vix_flax.training.plots import plot_comparison

    runs = [History.read(folder) for folder in args.folders]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model")
    table.add_column("data")
    headings = ("parameters", "epochs", "best val", "test", "s/epoch")
    for heading in headings:
        table.add_column(heading, justify="right")

    def score(accuracy, loss):
        if accuracy is not None:
            return f"{accuracy:.2%}"
        return "–" if loss is None else f"loss {loss:.4f}"

    names = labels(runs)
    for name, run in zip(names, runs, strict=True):
        params = f"{run.test['params']:,}" if run.test else "–"
        best = score(run.best("val_accuracy"), run.best("val_loss"))
        test = score(run.test.get("test_accuracy"), run.test.get("test_loss"))
        row = (params, str(len(run.rows)), best, test, f"{run.seconds_an_epoch:.2f}")
        table.add_row(name, run.dataset, *row)
    out.print(table)
    path = Path(args.output)
    title = ", ".join(dict.fromkeys(run.dataset for run in runs))
    plot_comparison(path, {name: run.rows for name, run in zip(names, runs, strict=True)}, title)
    out.print(f"{path}: accuracy by epoch and by time")
    return 0


def augment_picture(config, path: Path) -> None:
    """A row for each of eight training images: as it is, then as seven steps would see it."""
    import jax

    from vix_flax.data import Mix
    from vix_flax.run import augment_of, dataset_of
    from vix_flax.training.plots import plot_images

    data = dataset_of(config)
    chosen = np.random.default_rng(config.seed).permutation(len(data.train))[:8]
    images, labels = data.train.images[chosen], data.train.labels[chosen]
    augmented = jax.jit(augment_of(config, data.mean, data.std).augmented)
    mix = Mix(len(data.classes), config.mixup, config.cutmix)
    steps = []
    for augment_key, mix_key in jax.random.split(jax.random.key(config.seed), (7, 2)):
        step = augmented(images, augment_key)
        if config.mixup or config.cutmix:
            step, _ = mix(step, labels, mix_key)
        steps.append(np.asarray(step))
    rows = [[image, *(step[i] for step in steps)] for i, image in enumerate(images)]
    plot_images(path, rows, [data.classes[label] for label in labels])
