"""What a trained ViT keeps when its attention is swapped: accuracy before, right after, and tuned.

    python benchmarks/swap.py --dataset digits
    python benchmarks/swap.py --dataset cifar10 --data-dir DIR --epochs 4 --tune-epochs 1 \\
        --set patch_size=4 --set dim=64 --set depth=3 --set dim_head=16 --set mlp_dim=128
    python benchmarks/swap.py --show swap_digits_cpu     # the table of saved results again

Trains a ViT by the data set's recipe (or takes `--run`), swaps each attention in, and fine-tunes
it for `--tune-epochs`: once on labels alone, once taught by the model that it was. Test images are
looked at, but nothing is chosen by them. Prints a table in Markdown; `--save` writes JSON with
machine, versions and date to `benchmarks/results/`.
"""

import argparse
import dataclasses
import json
import tempfile
import time

import jax
from record import RESULTS, save

from vix_flax.data import eval_batches, load_dataset
from vix_flax.flags import parse_assignments
from vix_flax.host_memory import keep_freed_memory
from vix_flax.launch import train
from vix_flax.recipes import recipe
from vix_flax.run import EVAL_BATCH, Run
from vix_flax.training import evaluate
from vix_flax.wrappers import swap_attention


def attentions(tokens):
    """Linear attentions, with a quarter and half of the tokens as their rank."""
    for rank in (tokens // 4, tokens // 2):
        yield "nystrom", {"num_landmarks": rank}
        yield "linformer", {"k": rank}
    yield "performer", {"nb_features": 256}
    yield "linear", {}


def measure(run, data, output, tune_epochs, lr):
    """Rows of (attention, options, right after, tuned on labels, tuned by itself)."""
    image = run.augment(data.val.images[:1])
    tokens = run.model.apply(run.variables, image, method="tokens")
    for name, options in attentions(tokens.shape[1]):
        swapped, variables = swap_attention(run.model, run.variables, to=name, **options)
        batches = eval_batches(data.test, EVAL_BATCH)
        right_after = evaluate(variables, batches, swapped.apply, run.augment)["accuracy"]
        fields = {**run.config.model_fields, "attention": name, "attention_options": options}
        config = dataclasses.replace(
            run.config, model_fields=fields, swap=str(run.folder), epochs=tune_epochs,
            lr=lr, min_lr=0.0, warmup_epochs=0.0,
        )  # fmt: skip
        labels = train(config, output)
        taught = train(dataclasses.replace(config, teacher="self", distill_alpha=0.9), output)
        steps = json.loads((labels.folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        yield {
            "attention": name, "options": options, "right_after": right_after, "steps": steps,
            "labels": labels.test["accuracy"], "taught": taught.test["accuracy"],
        }  # fmt: skip


def table(before, rows):
    """The rows in Markdown."""
    lines = [
        f"| softmax: {before:.1%} | right after the swap | {rows[0]['steps']} steps on labels "
        f"| {rows[0]['steps']} steps, taught by itself |",
        "|---|---:|---:|---:|",
    ]
    for row in rows:
        options = ", ".join(f"`{name}={value}`" for name, value in row["options"].items())
        name = f"`{row['attention']}`" + (f", {options}" if options else "")
        scores = (f"{row[column]:.1%}" for column in ("right_after", "labels", "taught"))
        lines.append(f"| {name} | " + " | ".join(scores) + " |")
    return "\n".join(lines)


def saved_table(name):
    result = json.loads((RESULTS / f"{name}.json").read_text())
    return table(result["before"], result["rows"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--run", help="a run of a softmax model, instead of training one")
    parser.add_argument("--epochs", type=int, help="of the ViT (default: the recipe's)")
    parser.add_argument("--tune-epochs", type=int, default=10)
    parser.add_argument("--tune-lr", type=float, default=1e-3)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--output", default=None, help="keeps the runs (default: a temporary one)")
    parser.add_argument("--save", metavar="NAME", help="writes benchmarks/results/NAME.json")
    parser.add_argument("--show", metavar="NAME", help="prints the table of that file and stops")
    args = parser.parse_args()
    if args.show:
        print(saved_table(args.show))
        return
    keep_freed_memory()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        output = args.output or temporary
        if args.run:
            folder = args.run
        else:
            config = recipe(args.dataset, "vit")
            fields = {**config.model_fields, **parse_assignments(args.set)}
            config = dataclasses.replace(config, data_dir=args.data_dir, model_fields=fields)
            config = config.for_epochs(args.epochs or config.epochs)
            folder = train(config, output, on_epoch=lambda row: print(row, flush=True)).folder
        run = Run.load(folder)
        data = load_dataset(run.config.dataset, args.data_dir or run.config.data_dir)
        before = run.evaluate(data_dir=args.data_dir)["accuracy"]
        rows = []
        for row in measure(run, data, output, args.tune_epochs, args.tune_lr):
            rows.append(row)
            print(row, flush=True)
        config = dataclasses.asdict(run.config)
    print(table(before, rows))
    if args.save:
        save(
            args.save,
            ("vix_flax", "jax", "flax", "optax"),
            jax.default_backend().upper(),
            model={name: config[name] for name in ("dataset", "model", "model_fields", "epochs")},
            tune_epochs=args.tune_epochs,
            tune_lr=args.tune_lr,
            before=before,
            rows=rows,
            seconds=round(time.perf_counter() - start),
        )


if __name__ == "__main__":
    main()
