"""A training step (forward, backward, AdamW) against the torch classes, taking turns.

    pip install -e ".[bench]"
    python benchmarks/train_step.py                      # images of 32 × 32, patch 4: 65 tokens
    python benchmarks/train_step.py --patch-size 1 --models vit vin --rounds 2 --calls 1

Batch 32, float32, all cores (or a GPU: `--device gpu`). Printed: medians in ms, the most memory,
and ours over the best of torch's; below 1 we are better. See `benchmarks/README.md`.
"""

import peers
from turns import compare

BATCH = 32


def ours(name, fields, batch, dtype):
    import jax

    from vix_flax.training import StepPrograms

    mesh = peers.mesh_for(batch)
    state, data = state_and_batch(name, fields, batch, dtype, mesh)
    step = StepPrograms(augment=as_is, mesh=mesh)

    def call():
        nonlocal state
        state, metrics = step(state, data)
        jax.block_until_ready((state, metrics))

    return call


def state_and_batch(name, fields, batch, dtype, mesh):
    import numpy as np
    import optax

    from vix_flax.training.state import StateProgram

    img = peers.images(batch, fields.get("image_size", 32))
    data = peers.put({"image": img, "label": np.zeros(batch, np.int32)}, mesh)
    model = peers.our_model(name, fields, dtype)
    return StateProgram(model, img[:1], optax.adamw(1e-3), mesh=mesh)(), data


def as_is(images, key=None):
    """No augmentation: the images are normal deviates already."""
    return images


def theirs(side, device, name, fields, batch, dtype):
    import torch

    model = peers.torch_model(side, name, fields).train().to(device)
    img = peers.torch_images(batch, fields.get("image_size", 32), device)
    label = torch.zeros(batch, dtype=torch.long, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def call():
        optimizer.zero_grad(set_to_none=True)
        with peers.computing_in(dtype, device):
            loss = torch.nn.functional.cross_entropy(model(img), label)
        loss.backward()
        optimizer.step()
        peers.finish(device)

    return call


def main():
    parser = peers.model_parser(__doc__)
    parser.add_argument("--batch", type=int, default=BATCH)
    args = parser.parse_args()
    if args.worker:
        return peers.serve_model(args.worker, ours, theirs)
    title = f"train step, patch {args.patch_size}, batch {args.batch}"
    specs = {f"{title}, {args.dtype}": peers.model_specs(args, args.batch)}
    peers.save_models(args, "train_step", compare(__file__, specs, args, peers.FIVE))
    return None


if __name__ == "__main__":
    main()
