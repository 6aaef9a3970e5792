"""Two processes train one model over loopback: each has half of every batch, both the same result.

    python examples/two_processes.py

Takes about 20 seconds on 2 cores. It starts itself twice; on a cluster the scheduler does, and
`join()` finds out who is there. `vix train --distributed` does the same with everything around it.
"""

import socket
import subprocess
import sys
import time

import jax.numpy as jnp
import optax

import vix_flax as vix
from vix_flax.data import Augment, TrainBatches, load_dataset
from vix_flax.processes import join, shard
from vix_flax.training import create_state, train_step
from vix_flax.training.mesh import make_mesh, put_batch

STEPS, BATCH = 60, 64


def work(how):
    """What each process does: the same program, on its own part of the data."""
    join(how)  # before anything else is done with JAX
    index, count = shard()
    mesh = make_mesh()
    data = load_dataset("digits")
    model = vix.create_model(
        "vit", image_size=8, channels=1, patch_size=2, dim=32, depth=2, heads=2, mlp_dim=64
    )
    augment = Augment(data.mean, data.std)
    image = jnp.zeros((1, *data.image_shape))
    state = create_state(model, image, optax.adamw(2e-3), mesh=mesh)
    batches = TrainBatches(data.train, BATCH, shard=(index, count))
    for _, batch in zip(range(STEPS), batches, strict=False):
        state, metrics = train_step(state, put_batch(batch, mesh), augment=augment, mesh=mesh)
    largest = max(float(jnp.abs(leaf).max()) for leaf in state.params["head"]["dense"].values())
    print(
        f"process {index} of {count}, {len(batch['label'])} of {BATCH} images a step:",
        f"loss {float(metrics['loss']):.6f}, largest weight of the head {largest:.6f}",
    )


def main():
    """Starts both, and ends both if one fails: alone, the other would wait for it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, __file__]
    started = [
        subprocess.Popen([*command, f"{address},{index},2"], stdout=subprocess.PIPE, text=True)
        for index in range(2)
    ]
    try:
        while None in (codes := [process.poll() for process in started]) and not any(codes):
            time.sleep(0.1)
    finally:
        for process in started:
            process.kill()
    said = [process.communicate()[0] for process in started]
    if any(codes):
        return f"a process has failed (exit codes {codes}): see above"
    said = [text.splitlines()[-1] for text in said]
    print(*said, sep="\n")
    facts = {line.split(": ")[1] for line in said}
    if len(facts) > 1:
        return "they disagree"
    print("both agree")


if __name__ == "__main__":
    sys.exit(main() if len(sys.argv) == 1 else work(sys.argv[1]))
