"""The `vix` command: list, summary, data, augment, train, eval, compare, predict, attention, demo,
bench.

A user's mistake is one line on stderr and exit code 2; an interrupt is exit code 130.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vix_flax.bench_command import bench_command, scale_command
from vix_flax.demo_command import demo_command
from vix_flax.flags import DATA_FLAGS, add_cache, add_flags, add_set, add_train_flags
from vix_flax.show import (
    attention_command,
    compare_command,
    data_command,
    list_command,
    out,
    summary_command,
)
from vix_flax.train_command import augment_command, train_command
from vix_flax.user_cache import keep_compiled_programs

PROGRAM, BENCH_SCALE = "vix", "bench scale"


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
    """An argparse parser whose errors are one line, and with one command of two words."""

    def parse_args(self, args=None, namespace=None):
        """`bench scale` is a command of its own, with other flags than `bench`."""
        args = list(sys.argv[1:] if args is None else args)
        if args[:2] == BENCH_SCALE.split():
            args[:2] = [BENCH_SCALE]
        return super().parse_args(args, namespace)

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
    text = "one of several processes: auto (SLURM, TPU, …), or HOST:PORT,INDEX,COUNT"
    sub.add_argument("--distributed", nargs="?", const="auto", metavar="WHICH", help=text)
    text = "rows of metrics for TensorBoard, in the run's folder"
    sub.add_argument("--log-tensorboard", action="store_true", help=text)
    text = "rows of metrics to Weights & Biases"
    sub.add_argument("--log-wandb", action="store_true", help=text)
    text = "a trace of ten steps, in the run's folder"
    sub.add_argument("--profile", action="store_true", help=text)
    add_cache(sub)

    sub = command("eval", eval_command, "accuracy of a trained run")
    sub.add_argument("folder", metavar="RUN")
    sub.add_argument("--split", default="test", choices=("train", "val", "test"))
    text = "the parameters as trained, not their moving average"
    sub.add_argument("--no-ema", action="store_true", help=text)
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

    text = "a local page: drop or draw an image, see classes and attention, compare runs"
    sub = command("demo", demo_command, text)
    sub.add_argument("folders", nargs="+", metavar="RUN")
    sub.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    sub.add_argument("--port", type=int, help="default: the first free one from 7860")
    sub.add_argument("--top-k", type=int, default=3, help="classes shown (default: 3)")
    add_cache(sub)

    text = "images/s, memory and FLOPs of models, here (of attentions alone: vix bench scale)"
    sub = command("bench", bench_command, text)
    sub.add_argument("models", nargs="+", metavar="MODEL")
    sub.add_argument("-b", "--batch-size", type=int, default=32, help="images a call (default: 32)")
    text = "calls of each program, of which the median counts (default: as many as --seconds has)"
    sub.add_argument("--calls", type=int, help=text)
    text = "of calls of each program, three at least (default: 3)"
    sub.add_argument("--seconds", type=float, default=3.0, help=text)
    sub.add_argument("--json", metavar="FILE", help="where to write it, with versions and date")
    add_set(sub)

    text = "time, memory and FLOPs of every attention against tokens: tables, CSV, a picture"
    sub = command(BENCH_SCALE, scale_command, text)
    sub.add_argument("--attentions", metavar="A,B,…", help="default: all, and fourier")
    tokens = "64,256,1024,4096,16384"
    sub.add_argument("--tokens", default=tokens, metavar="N,N,…", help=f"default: {tokens}")
    for name, default in (("-b --batch-size", 1), ("--heads", 4), ("--dim-head", 32)):
        sub.add_argument(*name.split(), type=int, default=default, help=f"default: {default}")
    text = "of queries, keys and values, e.g. bfloat16 (default: float32)"
    sub.add_argument("--dtype", default="float32", help=text)
    text = "that a point may need (default: three quarters of what is there)"
    sub.add_argument("--memory-limit", type=float, metavar="GIB", help=text)
    text = "of calls of each point, three at least (default: 1)"
    sub.add_argument("--seconds", type=float, default=1.0, help=text)
    text = "that a point may take, by the one before it (default: 60)"
    sub.add_argument("--point-seconds", type=float, default=60.0, metavar="S", help=text)
    text = "folder (default: bench_scale)"
    sub.add_argument("--output", default="bench_scale", metavar="DIR", help=text)
    return parser


def eval_command(args: argparse.Namespace) -> int:
    """`vix eval RUN`: loss and accuracies, the classes that are hardest, and all of it as JSON."""
    import json

    from vix_flax.run import Run
    from vix_flax.run_folder import write_aside

    if not args.no_compilation_cache:
        keep_compiled_programs()
    run = Run.load(args.folder, args.best, averaged=not args.no_ema)
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
    if not args.no_compilation_cache:
        keep_compiled_programs()
    run = Run.load(args.folder)
    images = np.stack([read_image(path, run.image_shape) for path in args.images])
    for path, probabilities in zip(args.images, run.predict(images), strict=True):
        best = np.argsort(-probabilities)[: args.top_k]
        out.print(f"{path}: " + ", ".join(f"{run.classes[i]} {probabilities[i]:.1%}" for i in best))
    return 0


if __name__ == "__main__":
    sys.exit(main())
