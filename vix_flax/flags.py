"""Flags of the `vix` command that several of its commands take; names are timm's."""

import argparse
import ast
import contextlib
from collections.abc import Collection, Sequence
from typing import Any

# Name, type (bool: a switch), help.
TRAIN_FLAGS = (
    ("--model", str, "a name from `vix list` (default: vin)"),
    ("--dataset", str, "digits, cifar10, cifar100, tiny_imagenet, folder (default: digits)"),
    ("--data-dir", str, "folder with the data set's archive, or your own with train/<class>/"),
    ("--img-size", int, "pixels of the square that your own images are cut to (default: 64)"),
    ("--on-bad-image", str, "error, or skip what cannot be decoded"),
    ("--loader", str, "where training images are: memory, device, stream (default: by size)"),
    ("--epochs", int, "passes over the training images"),
    ("-b --batch-size", int, "images a step"),
    ("--grad-accum-steps", int, "parts that a batch is worked through in, to save memory"),
    ("--steps-at-once", int, "taken on the device before the host is asked; --loader device"),
    ("--mesh", str, "devices, e.g. data=8 or data=4,fsdp=2 (default: all of them, data)"),
    ("--memory-limit", float, "GiB of each device that a step may need (default: what is there)"),
    ("--fit", bool, "change remat, --grad-accum-steps, --batch-size until a step fits"),
    ("--deterministic", bool, "the same bits from the same command, on a GPU, too"),
    ("--opt", str, "adamw, lamb, lion, sgd, adafactor, muon, schedule_free_adamw"),
    ("--lr", float, "highest learning rate"),
    ("--min-lr", float, "learning rate at the end of a falling schedule"),
    ("--sched", str, "learning-rate schedule: cosine, constant, linear, rsqrt, wsd"),
    ("--warmup-epochs", float, "epochs of linear warm-up"),
    ("--layer-decay", float, "of the learning rate, from each layer to the one before it"),
    ("--weight-decay", float, "decoupled; not of norms, biases, tokens, positions"),
    ("--clip-grad", float, "largest global norm of the gradient"),
    ("--smoothing", float, "label smoothing"),
    ("--color-jitter", float, "spread of brightness, contrast and saturation"),
    ("--aa", str, "augmentation policy: rand (RandAugment), trivial (TrivialAugment)"),
    ("--reprob", float, "share of the images in which a rectangle is erased"),
    ("--mixup", float, "alpha of mixup"),
    ("--cutmix", float, "alpha of CutMix; with mixup, either of them for each batch"),
    ("--drop", float, "dropout of the model"),
    ("--attention", str, "attention of the model, e.g. nystrom (see vix list --grid)"),
    ("--num-classes", int, "classes of the model (default: those of the data)"),
    ("--objective", str, "classify, or without labels: mpp (masked patches), byol (two views)"),
    ("--init-from", str, "a run to start from; the head is new if the classes are"),
    ("--swap", str, "a run to start from, with another --attention"),
    ("--teacher", str, "a run to learn from, too; with --swap also 'self'"),
    ("--distill", str, "what to learn from the teacher: soft (probabilities), hard (decisions)"),
    ("--model-ema", bool, "evaluate a moving average of the parameters"),
    ("--model-ema-decay", float, "of the moving average, per step"),
    ("--seed", int, "of everything random"),
    ("--keep", int, "newest checkpoints that are kept, and as many of the best"),
)
DATA_FLAGS = ("--data-dir", "--img-size", "--on-bad-image")


def add_train_flags(parser: argparse.ArgumentParser) -> None:
    """All flags that change a `TrainConfig`, and `--set` for the rest."""
    text = "vix_cifar10, nanovit_cifar10, vix_tiny_imagenet, modern_cifar10 (default: the data's)"
    parser.add_argument("--recipe", metavar="NAME", help=text)
    add_flags(parser, [names for names, *_ in TRAIN_FLAGS])
    add_set(parser)


def add_flags(parser: argparse.ArgumentParser, chosen: Collection[str]) -> None:
    """Some of `TRAIN_FLAGS`."""
    for names, kind, text in TRAIN_FLAGS:
        if names in chosen:
            options = dict(action="store_true", default=None) if kind is bool else dict(type=kind)
            parser.add_argument(*names.split(), help=text, **options)


def add_set(parser: argparse.ArgumentParser) -> None:
    """`--set field=value`, as often as wanted."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any field of the model or of TrainConfig, e.g. --set num_landmarks=16",
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """The switch for XLA's compilation cache."""
    parser.add_argument(
        "--no-compilation-cache",
        action="store_true",
        help="compile anew instead of keeping programs in the user's cache folder",
    )


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
