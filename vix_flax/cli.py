"""The `vix` command: list, summary, data, augment, train, eval, compare, predict, attention.

A user's mistake is one line on stderr and exit code 2; an interrupt is exit code 130.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from vix_flax.flags import (
    DATA_FLAGS,
    add_cache,
    add_flags,
    add_set,
    add_train_flags,
    parse_assignments,
)
from vix_flax.show import (
    attention_command,
    augment_picture,
    compare_command,
    data_command,
    list_command,
    out,
    summary_command,
)
from vix_flax.user_cache import user_cache

PROGRAM = "vix"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line."""

    def error(self, message):
        """Prints the line and exits with 2."""
        self.exit(2, f"{PROGRAM}: error: {message} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """All commands and flags; training flags have timm's names."""
    parser = Parser(prog=PROGRAM, description="Efficient attention × vision backbones, in JAX.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, run, text):
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    sub = command("list", list_command, "names of models, e.g. vix list 'hybrid_*'")
    sub.add_argument("pattern", nargs="?", default="*")
    sub.add_argument("--grid", action="store_true", help="which attention goes with which model")

    sub = command("summary", summary_command, "parameters, FLOPs and outputs of a model's parts")
    sub.add_argument("model")
    sub.add_argument("--depth", type=int, default=1, help="levels of parts (default: 1)")
    add_set(sub)

    text = "data sets: list, prepare NAME (downloads it), info NAME, show NAME (a picture)"
    sub = command("data", data_command, text)
    sub.add_argument("action", choices=("list", "prepare", "info", "show"))
    sub.add_argument("name", nargs="?", metavar="NAME")
    add_flags(sub, DATA_FLAGS)
    sub.add_argument("--output", metavar="PNG", help="default: NAME.png, here")

    sub = command("augment", augment_command, "picture of what training does to images")
    add_train_flags(sub)
    sub.add_argument("--output", default="augment.png", metavar="PNG", help="default: augment.png")

    sub = command("train", train_command, "train; alone: ViN on hand-written digits")
    add_train_flags(sub)
    sub.add_argument(
        "--output", metavar="RUN", help="the run's folder (default: a new one in runs)"
    )
    text = "auto: go on with what is in --output; none: refuse to; RUN: go on with that run"
    sub.add_argument("--resume", default="auto", metavar="auto|none|RUN", help=text)
    add_cache(sub)

    sub = command("eval", eval_command, "accuracy of a trained run")
    sub.add_argument("folder", metavar="RUN")
    sub.add_argument("--split", default="test", choices=("train", "val", "test"))
    sub.add_argument("--best", action="store_true", help="the best checkpoint, not the newest")
    sub.add_argument("--dataset", help="another data set with the same classes")
    sub.add_argument("--json", metavar="FILE", help="where to write it, with every class")
    sub.add_argument("--data-dir", help="where the data is, if it has moved")
    add_cache(sub)

    sub = command("attention", attention_command, "picture of what each layer and head attends to")
    sub.add_argument("folder", metavar="RUN")
    sub.add_argument("image", metavar="IMAGE")
    sub.add_argument("--output", metavar="PNG", help="default: IMAGE.attention.png, here")

    sub = command("compare", compare_command, "runs side by side: a table, and a picture")
    sub.add_argument("folders", nargs="+", metavar="RUN")
    sub.add_argument("--output", default="compare.png", metavar="PNG", help="default: compare.png")

    sub = command("predict", predict_command, "most probable classes of image files")
    sub.add_argument("folder", metavar="RUN")
    sub.add_argument("images", nargs="+", metavar="IMAGE")
    sub.add_argument("--top-k", type=int, default=3)
    add_cache(sub)
    return parser


def train_command(args: argparse.Namespace) -> int:
    """`vix train`: reports each epoch, then a table and where everything is."""
    from vix_flax.host_memory import keep_freed_memory
    from vix_flax.launch import Stopped, train
    from vix_flax.progress import Progress
    from vix_flax.stop import StopSignals

    output, resumed = args.output, resumed_run(args)
    if resumed:
        if output not in (None, resumed):
            raise ValueError(f"--resume {resumed} and --output {output}: give one of them")
        output = resumed
    config = config_from(args)
    keep_freed_memory()
    start_compilation_cache(args)
    with StopSignals() as signals, Progress(config, out) as progress:

        def start(started):
            progress.start(started)
            signals.listen()

        try:
            result = train(
                config, output, args.resume != "none", start, progress.step, progress.epoch,
                signals.asked,
            )  # fmt: skip
        except Stopped as stopped:
            out.print(f"{stopped}; to go on: vix train --resume {stopped.folder}")
            return 0
    table = Table(title="done", box=None, pad_edge=False, show_header=False, title_justify="left")
    labelled = "accuracy" in result.test
    name, form = ("accuracy", "{:.2%}") if labelled else ("loss", "{:.4f}")
    for title, value in (
        (f"validation {name}", form.format(result.val[f"val_{name}"])),
        (f"test {name}", form.format(result.test[name])),
        ("parameters", f"{result.params:,}"),
        ("time", f"{result.seconds:.0f} s"),
        ("run", str(result.folder)),
    ):
        table.add_row(title, value)
    out.print(table)
    pictures = "curves.png and confusion.png" if labelled else "curves.png"
    command = f"vix eval {result.folder}" if labelled else f"vix train --init-from {result.folder}"
    out.print(f"Look at {result.folder}/{pictures}, or: {command}")
    return 0


def augment_command(args: argparse.Namespace) -> int:
    """`vix augment`: a picture of training images, as they are and as training sees them."""
    augment_picture(config_from(args), Path(args.output))
    out.print(f"{args.output}: originals, and each as seven steps of training would see it")
    return 0


def config_from(args: argparse.Namespace):
    """The recipe of the data set, changed by the flags that were given.

    Raises:
        ValueError: an unknown data set or field, or a value out of range.
    """
    from vix_flax.training import TrainConfig

    known = {field.name for field in dataclasses.fields(TrainConfig)} - {"model_fields"}
    fields = {
        name: value for name, value in vars(args).items() if name in known and value is not None
    }
    given = {"dropout": args.drop, "attention": args.attention, "num_classes": args.num_classes}
    model_fields = {name: value for name, value in given.items() if value is not None}
    options = objective_fields(args.objective)
    for name, value in parse_assignments(args.set).items():
        if name in options:
            fields.setdefault("objective_options", {})[name] = value
        else:
            (fields if name in known else model_fields)[name] = value
    for name in ("data_dir", "init_from", "swap", "teacher"):
        if name in fields and fields[name] != "self":  # a run may go on from another folder
            fields[name] = str(Path(fields[name]).expanduser().resolve())
    config = starting_config(args, fields)
    if not resumed_run(args) and "epochs" in fields and isinstance(fields["epochs"], int):
        # The recipe's warm-up keeps its share of the run.
        share = config.warmup_epochs / config.epochs
        fields.setdefault("warmup_epochs", share * fields["epochs"])
    return dataclasses.replace(
        config, **fields, model_fields={**config.model_fields, **model_fields}
    )


def resumed_run(args: argparse.Namespace) -> str | None:
    """The run that `--resume` names; None without one, and for commands that have no such flag."""
    resume = getattr(args, "resume", "auto")
    return None if resume in ("auto", "none") else resume


def objective_fields(objective: str | None) -> tuple[str, ...]:
    """What `--set` reaches in the wrapper of an objective, beside model and training."""
    from vix_flax.layers import field_names
    from vix_flax.task import WRAPPERS

    if objective not in WRAPPERS:
        return ()
    taken = ("transformer", "net", "patch_size", "dim", "channels", "mean", "std")
    return tuple(name for name in field_names(WRAPPERS[objective]) if name not in taken)


def starting_config(args: argparse.Namespace, fields: dict[str, Any]):
    """The recipe of the data set; with a run to start from, that run's model in it.

    Raises:
        ValueError: an unknown data set or model, or no run where one should be.
    """
    from vix_flax.data import DATASETS
    from vix_flax.recipes import recipe
    from vix_flax.suggest import did_you_mean

    resumed = resumed_run(args)
    if resumed:
        from vix_flax.run import saved_config

        if args.recipe:
            raise ValueError(f"--resume {resumed} goes on with its own recipe: leave --recipe out")
        return saved_config(resumed)
    source = args.init_from or args.swap
    if not source:
        if args.recipe:  # whose data may be another's
            return recipe(args.recipe, fields.pop("model", None))
        dataset = fields.pop("dataset", "digits")
        if dataset not in DATASETS:
            raise ValueError(f"unknown dataset {dataset!r}" + did_you_mean(dataset, DATASETS))
        return recipe(dataset, fields.pop("model", None))
    from vix_flax.run import Run

    trained = Run.load(source).config
    if args.model not in (None, trained.model):
        raise ValueError(f"{source} is a run of {trained.model}: leave --model {args.model} out")
    if args.swap and not args.attention:
        raise ValueError("--swap needs the new --attention")
    fields.pop("model", None)
    dataset = fields.pop("dataset", trained.dataset)
    config = recipe(args.recipe or dataset, trained.model)
    config = dataclasses.replace(config, dataset=dataset)
    decided = ("image_size", "channels", "num_classes")  # by the data set
    kept = {k: v for k, v in trained.model_fields.items() if k not in decided}
    same = {}
    if config.dataset == trained.dataset:
        same = {name: getattr(trained, name) for name in ("data_dir", "img_size", "on_bad_image")}
    return dataclasses.replace(config, model_fields=kept, **same)


def eval_command(args: argparse.Namespace) -> int:
    """`vix eval RUN`: loss and accuracies, the classes that are hardest, and all of it as JSON."""
    import json

    from vix_flax.run import Run
    from vix_flax.run_folder import write_aside

    start_compilation_cache(args)
    run = Run.load(args.folder, best=args.best)
    result = run.evaluate(args.split, args.data_dir, args.dataset)
    confusion = result.pop("confusion")
    count = int(confusion.sum())
    dataset = args.dataset or run.config.dataset
    out.print(
        f"{run.config.model} on {dataset}/{args.split} ({count:,} images): "
        f"accuracy {result['accuracy']:.2%}, top-5 {result['top5']:.2%}, loss {result['loss']:.4f}"
    )
    counts = confusion.sum(axis=1)
    shares = {
        name: confusion[i, i] / counts[i] if counts[i] else None  # there are no images of it
        for i, name in enumerate(run.classes)
    }
    there = sorted((share, name) for name, share in shares.items() if share is not None)
    hardest = [f"{name} {share:.1%}" for share, name in there[:3]]
    out.print(f"hardest classes: {', '.join(hardest)}")
    if args.json:
        content = {"run": str(run.folder), "dataset": dataset, "split": args.split, "count": count}
        content |= {**result, "per_class": shares, "confusion": confusion.tolist()}
        write_aside(Path(args.json), json.dumps(content, indent=2) + "\n")
    return 0


def predict_command(args: argparse.Namespace) -> int:
    """`vix predict RUN IMAGE…`."""
    import numpy as np

    from vix_flax.data import read_image
    from vix_flax.run import Run

    if args.top_k < 1:
        raise ValueError(f"--top-k {args.top_k} must be at least 1")
    start_compilation_cache(args)
    run = Run.load(args.folder)
    images = np.stack([read_image(path, run.image_shape) for path in args.images])
    for path, probabilities in zip(args.images, run.predict(images), strict=True):
        best = np.argsort(-probabilities)[: args.top_k]
        out.print(f"{path}: " + ", ".join(f"{run.classes[i]} {probabilities[i]:.1%}" for i in best))
    return 0


def start_compilation_cache(args: argparse.Namespace) -> None:
    """Lets XLA keep compiled programs in the user's cache folder, unless the flag says no."""
    import jax

    if args.no_compilation_cache:
        return
    cache = user_cache("xla")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # nowhere to keep it: everything still works, a little slower
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


if __name__ == "__main__":
    sys.exit(main())
