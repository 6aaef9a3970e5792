"""Accuracy and time of every epoch, one backbone with five ways to mix tokens: table and picture.

    python benchmarks/epochs.py --save                      # digits: 65 tokens
    python benchmarks/epochs.py --dataset cifar10 --data-dir DIR --epochs 5 --set patch_size=4
    python benchmarks/epochs.py --show epochs_digits_cpu    # saved results again

Every model is trained as `vix train` does it, by the data set's recipe but at one learning rate,
which was chosen for none of them. They are trained one after the other: close other programs.
"""

import argparse
import dataclasses
import json
import tempfile

import jax
from record import RESULTS, save

from vix_flax.compare import History
from vix_flax.cores import use_all_cores
from vix_flax.flags import parse_assignments
from vix_flax.host_memory import keep_freed_memory
from vix_flax.launch import train
from vix_flax.recipes import recipe

MODELS = ("vit", "vil", "vip", "vin", "fnet")
KEPT = ("epoch", "val_accuracy", "seconds")
LR = 2e-3


def measure(name, args, output):
    """Rows of each epoch, and accuracy on test images."""
    config = recipe(args.dataset, name).for_epochs(args.epochs)
    fields = {**config.model_fields, **parse_assignments(args.set)}
    config = dataclasses.replace(config, data_dir=args.data_dir, model_fields=fields, lr=args.lr)
    run = History.read(train(config, f"{output}/{name}").folder)
    rows = [{key: row[key] for key in KEPT} for row in run.rows]
    return {
        "test_accuracy": run.test["test_accuracy"],
        "params": run.test["params"],
        "seconds_an_epoch": run.seconds_an_epoch,
        "epochs": rows,
    }


def table(models):
    lines = ["| model | parameters | test | s/epoch |", "|---|---:|---:|---:|"]
    for name, run in models.items():
        params, test = f"{run['params']:,}", f"{run['test_accuracy']:.1%}"
        lines.append(f"| `{name}` | {params} | {test} | {run['seconds_an_epoch']:.2f} |")
    return "\n".join(lines)


def saved_table(name):
    return table(json.loads((RESULTS / f"{name}.json").read_text())["models"])


def plot(name, folder=RESULTS):
    """`NAME.png`: validation accuracy against epochs, and seconds an epoch."""
    from matplotlib.figure import Figure

    result = json.loads((RESULTS / f"{name}.json").read_text())
    figure = Figure(figsize=(10, 4), layout="constrained")
    how = f"{result['config']['dataset']}, {result['machine']}, {result['date']}"
    figure.suptitle(f"One backbone, five ways to mix tokens ({how})", fontsize=11)
    by_epoch, by_time = figure.subplots(1, 2, width_ratios=(3, 2))
    for i, (model, run) in enumerate(result["models"].items()):
        epochs, scores = zip(
            *((row["epoch"], row["val_accuracy"]) for row in run["epochs"]), strict=True
        )
        by_epoch.plot(epochs, scores, color=f"C{i}", marker=".", label=model)
        bar = by_time.barh(model, run["seconds_an_epoch"], color=f"C{i}")
        by_time.bar_label(bar, fmt="%.2f", padding=3)
    by_epoch.set(xlabel="epoch", ylabel="validation accuracy")
    by_epoch.xaxis.get_major_locator().set_params(integer=True)
    by_epoch.grid(alpha=0.3)
    by_epoch.legend()
    by_time.set(xlabel="seconds an epoch")
    by_time.invert_yaxis()
    by_time.margins(x=0.15)
    by_time.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / f"{name}.png", dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=LR)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--save", action="store_true", help="writes JSON and PNG to results/")
    parser.add_argument("--show", metavar="NAME", help="draws that file, trains nothing")
    args = parser.parse_args()
    if args.show:
        plot(args.show)
        print(saved_table(args.show))
        return
    use_all_cores()
    keep_freed_memory()
    models = {}
    with tempfile.TemporaryDirectory() as output:
        for name in args.models:
            models[name] = measure(name, args, output)
            print(name, f"{models[name]['test_accuracy']:.1%}", flush=True)
    print(table(models))
    if args.save:
        config = {key: getattr(args, key) for key in ("dataset", "epochs", "lr", "set")}
        device = jax.default_backend()
        path = save(
            f"epochs_{args.dataset}_{device}", ("vix_flax", "jax", "flax", "optax"),
            device.upper(), config=config, models=models,
        )  # fmt: skip
        plot(path.stem)


if __name__ == "__main__":
    main()
