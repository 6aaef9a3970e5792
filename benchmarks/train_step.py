"""Train step and inference against the torch classes, side by side in one run.

    pip install -e ".[bench]"
    python benchmarks/train_step.py                      # README configuration, image 32, patch 4
    python benchmarks/train_step.py --patch-size 1 --models vit vin --rounds 5

Each side is a process of its own with the same threads, batch and float32; they take turns
(A B A B), so that a busy machine slows both. Printed: medians in ms and our time over theirs,
below 1 we are faster. `--save` writes JSON with machine, versions and date to
`benchmarks/results/`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from record import save

CONFIG = dict(image_size=32, num_classes=10, dim=128, depth=4, heads=4, mlp_dim=256, dim_head=32)
MODELS = ("vit", "vin", "vip", "vil", "fnet")
SIDES = ("ours", "torch", "torch_compile")


def ours(name, config, batch):
    """(train step, inference) of this package, each a function that returns when it is done."""
    import jax
    import jax.numpy as jnp
    import optax

    import vix_flax as vix
    from vix_flax.training import create_state, train_step

    model = vix.create_model(name, dropout=0.0, **config)
    img = jax.random.normal(
        jax.random.key(0), (batch, config["image_size"], config["image_size"], 3)
    )
    data = {"image": img, "label": jnp.zeros((batch,), jnp.int32)}
    state = create_state(model, img, optax.adamw(1e-3))
    infer = jax.jit(model.apply)

    def train():
        nonlocal state
        state, metrics = train_step(state, data, augment=as_is)
        jax.block_until_ready((state, metrics))

    return train, lambda: jax.block_until_ready(infer(state.eval_variables, img))


def as_is(images, key=None):
    """No augmentation: the images are normal deviates already."""
    return images


def torch_peer(name, config, batch, compiled):
    """(train step, inference) of the published class: vit-pytorch's ViT, else the pip package's."""
    from unittest import mock

    import torch

    # vit_pytorch's __init__ imports torchvision, which not every torch build has a match for.
    with mock.patch.dict(sys.modules, {"torchvision": mock.MagicMock()}):
        import vit_pytorch
    import vision_xformer

    classes = {
        "vit": vit_pytorch.ViT,
        "vin": vision_xformer.ViN,
        "vip": vision_xformer.ViP,
        "vil": vision_xformer.ViL,
        "fnet": vision_xformer.FNet,
    }
    fields = dict(config)
    if name == "fnet":
        fields = {k: v for k, v in fields.items() if k not in ("heads", "dim_head")}
    model = classes[name](**fields)
    run = torch.compile(model) if compiled else model
    img = torch.randn(batch, 3, config["image_size"], config["image_size"])
    label = torch.zeros(batch, dtype=torch.long)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def train():
        model.train()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(run(img), label).backward()
        optimizer.step()

    def infer():
        model.eval()
        with torch.inference_mode():
            run(img)

    return train, infer


def worker(side, name, config, batch):
    """Answers each line on stdin, "train N" or "infer N", with the seconds of N calls."""
    build = (
        ours(name, config, batch)
        if side == "ours"
        else torch_peer(name, config, batch, side == "torch_compile")
    )
    calls = dict(zip(("train", "infer"), build, strict=True))
    for call in calls.values():
        call()
        call()
    print("ready", flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        seconds = []
        for _ in range(int(count)):
            start = time.perf_counter()
            calls[kind]()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


def measure(name, config, batch, sides, rounds, calls):
    """{side: {"train": ms, "infer": ms}}, medians over interleaved rounds."""
    processes = {}
    for side in sides:
        command = [
            sys.executable,
            __file__,
            "--worker",
            side,
            "--models",
            name,
            "--batch",
            str(batch),
            "--config",
            json.dumps(config),
        ]
        processes[side] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        answer = processes[side].stdout.readline().strip()
        if answer != "ready":
            raise SystemExit(f"{side} could not run {name}: {answer!r}")
    times = {side: {"train": [], "infer": []} for side in sides}
    for _ in range(rounds):
        for kind in ("train", "infer"):
            for side, process in processes.items():
                process.stdin.write(f"{kind} {calls}\n")
                process.stdin.flush()
                times[side][kind] += json.loads(process.stdout.readline())
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return {
        side: {kind: 1e3 * statistics.median(seconds) for kind, seconds in kinds.items()}
        for side, kinds in times.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--patch-size", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=5, help="calls a round")
    parser.add_argument("--sides", nargs="+", default=["ours", "torch"], choices=SIDES)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--config", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args.worker, args.models[0], args.config, args.batch)

    config = {**CONFIG, "patch_size": args.patch_size}
    peers = [side for side in args.sides if side != "ours"]
    print(f"{'model':6} {'':6} {'ours':>9}" + "".join(f"{p:>15} {'ratio':>6}" for p in peers))
    rows = {}
    for name in args.models:
        rows[name] = times = measure(name, config, args.batch, args.sides, args.rounds, args.calls)
        for kind in ("train", "infer"):
            mine = times["ours"][kind]
            row = "".join(f"{times[p][kind]:12.1f} ms {mine / times[p][kind]:6.2f}" for p in peers)
            print(f"{name:6} {kind:6} {mine:6.1f} ms{row}", flush=True)
    if args.save:
        packages = ("jax", "flax", "torch", "vit-pytorch", "vision-xformer")
        name = f"train_step_cpu_patch{args.patch_size}"
        path = save(name, packages, config=config, batch=args.batch, milliseconds=rows)
        print(f"written to {path}")


if __name__ == "__main__":
    main()
