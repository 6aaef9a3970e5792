"""A training step (forward, backward, AdamW) against the torch classes, taking turns.

    pip install -e ".[bench]"
    python benchmarks/train_step.py                      # images of 32 × 32, patch 4: 65 tokens
    python benchmarks/train_step.py --patch-size 1 --models vit vin --rounds 2 --calls 1

Batch 32, float32, all cores. Printed: medians in ms, the most memory, and ours over the best of
torch's; below 1 we are better. See `benchmarks/README.md`.
"""

import peers
from turns import compare

BATCH = 32


def ours(name, fields, batch):
    import jax
    import numpy as np
    import optax

    from vix_flax.training import create_state, train_step

    mesh = peers.mesh_for(batch)
    img = peers.images(batch, fields.get("image_size", 32))
    data = peers.put({"image": img, "label": np.zeros(batch, np.int32)}, mesh)
    state = create_state(peers.our_model(name, fields), img[:1], optax.adamw(1e-3), mesh=mesh)

    def call():
        nonlocal state
        state, metrics = train_step(state, data, augment=as_is, mesh=mesh)
        jax.block_until_ready((state, metrics))

    return call


def as_is(images, key=None):
    """No augmentation: the images are normal deviates already."""
    return images


def theirs(side, name, fields, batch):
    import torch

    model = peers.torch_model(side, name, fields).train()
    img = peers.torch_images(batch, fields.get("image_size", 32))
    label = torch.zeros(batch, dtype=torch.long)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def call():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(img), label).backward()
        optimizer.step()

    return call


def main():
    parser = peers.model_parser(__doc__)
    parser.add_argument("--batch", type=int, default=BATCH)
    args = parser.parse_args()
    if args.worker:
        return peers.serve_model(args.worker, ours, theirs)
    title = f"train step, patch {args.patch_size}, batch {args.batch}"
    specs = {title: peers.model_specs(args, args.batch)}
    peers.save_models(args, "train_step", compare(__file__, specs, args, peers.FIVE))
    return None


if __name__ == "__main__":
    main()
