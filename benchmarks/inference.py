"""Inference against the torch classes, taking turns: batch 32, and one image alone.

    pip install -e ".[bench]"
    python benchmarks/inference.py                       # images of 32 × 32, patch 4: 65 tokens
    python benchmarks/inference.py --patch-size 1 --models vit vin

Float32, all cores (or a GPU: `--device gpu`), the jitted model against `torch.inference_mode`.
Printed: medians in ms, the most memory, and ours over the best of torch's; below 1 we are better.
See `benchmarks/README.md`.
"""

import peers
from turns import compare

BATCHES = (32, 1)


def ours(name, fields, batch, dtype):
    import jax

    mesh = peers.mesh_for(batch)
    img = peers.images(batch, fields.get("image_size", 32))
    model = peers.our_model(name, fields, dtype)
    variables = peers.put_copies(jax.jit(model.init)(jax.random.key(0), img[:1]), mesh)
    img = peers.put({"image": img}, mesh)["image"]
    infer = jax.jit(model.apply)
    return lambda: jax.block_until_ready(infer(variables, img))


def theirs(side, device, name, fields, batch, dtype):
    import torch

    model = peers.torch_model(side, name, fields).eval().to(device)
    img = peers.torch_images(batch, fields.get("image_size", 32), device)

    def call():
        with torch.inference_mode(), peers.computing_in(dtype, device):
            model(img)
        peers.finish(device)

    return call


def main():
    parser = peers.model_parser(__doc__, calls=20)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    args = parser.parse_args()
    if args.worker:
        return peers.serve_model(args.worker, ours, theirs)
    title = f"inference, patch {args.patch_size}, batch"
    specs = {
        f"{title} {batch}, {args.dtype}": peers.model_specs(args, batch) for batch in args.batches
    }
    peers.save_models(args, "inference", compare(__file__, specs, args, peers.FIVE))
    return None


if __name__ == "__main__":
    main()
