"""How fast images come: ours from memory, device and stream; grain over TFDS; torch's DataLoader.

    pip install -e ".[bench]"
    python benchmarks/data.py DIR --save data_cifar10_cpu
    python benchmarks/data.py --show data_cifar10_jpeg_cpu     # the table of saved results again

DIR holds CIFAR-10: the official archive, or a copy that `cifar10_from_jpegs.py` made; the script
prepares the TFDS set beside it. Each side is a process of its own; they take turns, so that a busy
machine slows all. Printed: median images/s over the rounds, our time over each peer's in the same
run, and how much memory the loaded set takes, steady and at most, over its bytes as uint8.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from itertools import islice

from record import RESULTS, save

BATCH = 512
SETTLE = 1.5  # seconds
CROP_AND_FLIP = dict(crop_padding=4, flip=True)
AUGMENTED = {
    "crop + flip + erasing": {**CROP_AND_FLIP, "erase": 1.0},
    "random resized crop + flip": dict(min_crop=0.08, flip=True),
    "crop + flip + RandAugment": {**CROP_AND_FLIP, "policy": "rand"},
    "crop + flip + TrivialAugment": {**CROP_AND_FLIP, "policy": "trivial"},
}
SIDES = (
    "memory",
    "device",
    "stream",
    "grain over TFDS",
    "torch DataLoader",
    "torch DataLoader, tuned",
)


def ours(loader, folder, fields):
    """Batches of `TrainBatches`, augmented by a jitted function; the loaded set's bytes."""
    import jax

    from vix_flax.data import Augment, TrainBatches, load_dataset

    data = load_dataset("cifar10", folder)
    split = on_demand(folder) if loader == "stream" else data.train
    batches = TrainBatches(split, BATCH, loader=loader)
    augment = Augment(data.mean, data.std, **fields)

    @jax.jit
    def augmented(batch, key):
        images = batch["image"]
        return augment(images[batch["index"]] if "index" in batch else images, key)

    def take(count):
        for i, batch in enumerate(islice(batches, count)):
            out = augmented(batch, jax.random.key(i))
        jax.block_until_ready(out)

    size = sum(getattr(data, split).images.nbytes for split in ("train", "val", "test"))
    return take, size


def on_demand(folder):
    """The training images of the TFDS set, encoded."""
    import numpy as np

    from vix_flax.data import Split
    from vix_flax.data.decode import OnDemand
    from vix_flax.data.prepared import find_prepared, read_prepared

    files, _, named = read_prepared(find_prepared(folder, ("vix_cifar10",)), ("train",))
    names, labels = named["train"]
    return Split(OnDemand(files, np.asarray(names), (32, 32, 3)), labels)


def grain_over_tfds(folder, fields):
    """As a user would: shuffled records of `tfds.data_source` in batches; our jitted function."""
    import grain
    import jax
    import tensorflow_datasets as tfds

    import vix_flax.data.builders  # noqa: F401  (registers vix_cifar10)
    from vix_flax.data import Augment

    source = tfds.data_source("vix_cifar10", split="train", data_dir=folder)
    records = grain.MapDataset.source(source).shuffle(seed=0).repeat()
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4 * BATCH)
    batches = iter(records.to_iter_dataset(options).batch(BATCH))
    augment = jax.jit(Augment((0.5,) * 3, (0.25,) * 3, **fields))

    def take(count):
        for i, batch in enumerate(islice(batches, count)):
            out = augment(batch["image"], jax.random.key(i))
        jax.block_until_ready(out)

    return take, 0


def torch_loader(folder, tuned):
    """Two workers. Each image is padded, cropped, mirrored and normalised by itself, as
    torchvision's transforms do it (which this needs not); or, tuned, the whole set is padded
    beforehand, and batches are normalised.
    """
    import torch

    from vix_flax.data import load_dataset

    split = load_dataset("cifar10", folder).train
    images = torch.from_numpy(split.images).permute(0, 3, 1, 2).contiguous()
    pad = torch.nn.functional.pad
    if tuned:
        images = pad(images, (4, 4, 4, 4))
    mean, std = torch.tensor([0.5] * 3)[:, None, None], torch.tensor([0.25] * 3)[:, None, None]

    class Cropped(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, i):
            top, left = torch.randint(0, 9, (2,)).tolist()
            image = images[i] if tuned else pad(images[i], (4, 4, 4, 4))
            image = image[:, top : top + 32, left : left + 32]
            if torch.rand(1) < 0.5:
                image = image.flip(2)
            if not tuned:
                image = (image.float() / 255 - mean) / std
            return image, int(split.labels[i])

    loader = torch.utils.data.DataLoader(
        Cropped(), BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True
    )

    def endless():
        while True:
            yield from loader

    batches = endless()

    def take(count):
        for image, _ in islice(batches, count):
            if tuned:
                (image.float() / 255 - mean) / std

    return take, 0


def memory():
    """Bytes: what the process has now, and the most it had."""
    import psutil

    return psutil.Process().memory_info().rss, 1024 * resource.getrusage(
        resource.RUSAGE_SELF
    ).ru_maxrss


def worker(side, folder, fields):
    """Answers each line on stdin, a number of batches, with the seconds that they took."""
    if side.startswith("torch"):
        take, size = torch_loader(folder, tuned=side.endswith("tuned"))
    elif side == "grain over TFDS":
        take, size = grain_over_tfds(folder, fields)
    else:
        import jax

        jax.block_until_ready(jax.jit(lambda x: x + 1)(0))
        before, _ = memory()
        take, size = ours(side, folder, fields)
        steady, most = memory()
    take(4)
    loaded = {"set": size, "steady": steady - before, "most": most - before} if size else {}
    print(json.dumps(loaded), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        take(int(line))
        print(json.dumps(time.perf_counter() - start), flush=True)


def measure(sides, folder, rounds, seconds):
    """Median images/s of each (side, fields), taking turns; and the memory of a loaded set."""
    processes, counts, speeds, loaded = {}, {}, {}, {}
    for title, (side, fields) in sides.items():
        command = [sys.executable, __file__, folder, "--worker", side, json.dumps(fields)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit(f"{title} could not run")
        processes[title], loaded[title], speeds[title] = process, json.loads(answer), []
        counts[title] = max(2, int(seconds / (ask(process, 8) / 8)))
    for _ in range(rounds):
        for title, process in processes.items():
            taken = ask(process, counts[title])
            time.sleep(SETTLE)  # what reads ahead fills its buffers, which is not the next one's
            speeds[title].append(BATCH * counts[title] / taken)
    for process in processes.values():
        process.stdin.close()
        process.wait()
    return {title: statistics.median(each) for title, each in speeds.items()}, loaded


def ask(process, count):
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def table(result):
    """The speeds of a saved result in Markdown."""
    speeds = result["images_per_second"]
    lines = ["| images from | augmentation | images/s | memory is |", "|---|---|---:|---:|"]
    for side, speed in speeds.items():
        ratio = speeds["memory"] / speed
        lines.append(f"| {side} | crop + flip | {speed:,.0f} | {ratio:.3g} × as fast |")
    for title, speed in result["augmented_images_per_second"].items():
        lines.append(f"| memory | {title} | {speed:,.0f} | |")
    return "\n".join(lines)


def saved_table(name):
    return table(json.loads((RESULTS / f"{name}.json").read_text()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", metavar="DIR", nargs="?")
    parser.add_argument("--show", metavar="NAME", help="prints the table of that result and stops")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each side in a round")
    parser.add_argument("--save", metavar="NAME", help="writes benchmarks/results/NAME.json")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        side, fields = args.worker
        return worker(side, args.folder, json.loads(fields))
    if args.show:
        return print(saved_table(args.show))
    if not args.folder:
        parser.error("DIR is missing: the folder that holds CIFAR-10")
    from vix_flax.data.prepared import prepare

    prepare("cifar10", args.folder)
    plain = {side: (side, CROP_AND_FLIP) for side in SIDES}
    speeds, loaded = measure(plain, args.folder, args.rounds, args.seconds)
    heavier = {title: ("memory", fields) for title, fields in AUGMENTED.items()}
    augmented, _ = measure(heavier, args.folder, args.rounds, args.seconds)
    result = {"images_per_second": speeds, "augmented_images_per_second": augmented}
    print(table(result))
    held = loaded["memory"]
    for name in ("steady", "most"):
        print(f"memory taken, {name:7}{held[name] / held['set']:.2f} × the images as uint8")
    if args.save:
        path = save(
            args.save,
            ("jax", "grain", "tensorflow-datasets", "torch"),
            batch=BATCH,
            **result,
            memory=held,
        )
        print(f"written to {path}")
    return None


if __name__ == "__main__":
    main()
