"""`vix train` and `vix augment`: from flags to a config, and what a run says while it goes on."""

import argparse
import contextlib
import dataclasses
import gc
from pathlib import Path
from typing import Any

from rich.table import Table

from vix_flax.flags import parse_assignments
from vix_flax.show import augment_picture, out
from vix_flax.user_cache import keep_compiled_programs


def train_command(args: argparse.Namespace) -> int:
    """`vix train`: reports each epoch, then a table and where everything is."""
    from vix_flax.cores import use_all_cores
    from vix_flax.host_memory import keep_freed_memory
    from vix_flax.processes import is_first, join

    if args.distributed:
        join(args.distributed)
        out.quiet = not is_first()
    else:
        use_all_cores()  # before the config is made: that may read a run, on a device
    output, resumed = args.output, resumed_run(args)
    if resumed:
        if output not in (None, resumed):
            raise ValueError(f"--resume {resumed} and --output {output}: give one of them")
        output = resumed
    asked = args.deterministic or parse_assignments(args.set).get("deterministic")
    if asked or (resumed and _saved(resumed).deterministic):
        from vix_flax.deterministic import ask_for_determinism

        out.print(ask_for_determinism())
    config = config_from(args)
    keep_freed_memory()
    if not args.no_compilation_cache:
        keep_compiled_programs()
    result = _trained(args, config, output)
    if result is None:
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
    if args.profile:
        from vix_flax.watchers import trace_of

        trace = trace_of(result.folder)
        seen = f"{trace}: open it at https://ui.perfetto.dev" if trace else "no steps to trace"
        out.print(seen)
    return 0


def _trained(args, config, output):
    """The run's result; None if it was stopped."""
    from vix_flax.launch import train
    from vix_flax.processes import is_first
    from vix_flax.progress import Progress
    from vix_flax.stop import StopSignals
    from vix_flax.trainer import Stopped
    from vix_flax.watchers import Profile, TensorBoard, WandB

    gc.freeze()  # what was imported stays: looking at it again and again costs half a second
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        watchers = [stack.enter_context(Progress(config, out))]
        if is_first():
            for wanted, watcher in (
                (args.log_tensorboard, TensorBoard),
                (args.log_wandb, lambda: WandB(config)),
                (args.profile, Profile),
            ):
                if wanted:
                    watchers.append(stack.enter_context(watcher()))

        def start(started):
            for watcher in watchers:
                watcher.start(started)
            signals.listen()

        def step(steps):
            for watcher in watchers:
                watcher.step(steps)

        def epoch(row):
            for watcher in watchers:
                watcher.epoch(row)

        resume = args.resume != "none"
        try:
            return train(config, output, resume, start, step, epoch, signals.asked, out.print)
        except Stopped as stopped:
            out.print(f"{stopped}; to go on: vix train --resume {stopped.folder}")
            return None


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


def _saved(folder):
    from vix_flax.run import saved_config

    return saved_config(folder)


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
        if args.recipe:
            raise ValueError(f"--resume {resumed} goes on with its own recipe: leave --recipe out")
        return _saved(resumed)
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
