"""Weights in the names of the published PyTorch models become variables, and give its logits.

    python examples/from_torch.py

Takes about 5 seconds on 2 cores. PyTorch is not needed: the file holds arrays by name, as
`np.savez("weights.npz", **torch_model.state_dict())` writes them where it is installed; what it
would have computed is written out in NumPy.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np

import vix_flax as vix
from vix_flax.layers import PatchEmbed

BLOCK = "transformer.layers.0."
SHAPES = {
    "cls_token": (1, 1, 8), "pos_embedding": (1, 5, 8),
    "to_patch_embedding.1.weight": (8, 48), "to_patch_embedding.1.bias": (8,),
    BLOCK + "0.norm.weight": (8,), BLOCK + "0.norm.bias": (8,),
    BLOCK + "1.norm.weight": (8,), BLOCK + "1.norm.bias": (8,),
    BLOCK + "1.fn.net.0.weight": (16, 8), BLOCK + "1.fn.net.0.bias": (16,),
    BLOCK + "1.fn.net.3.weight": (8, 16), BLOCK + "1.fn.net.3.bias": (8,),
    "mlp_head.0.weight": (8,), "mlp_head.0.bias": (8,),
    "mlp_head.1.weight": (3, 8), "mlp_head.1.bias": (3,),
}  # fmt: skip


def published(weights, patches):
    """FNet of the ViX scripts: patches `(b, 4, 48)` -> logits `(b, 3)`."""

    def dense(x, name):
        return x @ weights[name + ".weight"].T + weights[name + ".bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * weights[name + ".weight"] + weights[name + ".bias"]

    tokens = dense(patches, "to_patch_embedding.1")
    cls = np.broadcast_to(weights["cls_token"], (len(tokens), 1, 8))
    x = np.concatenate([cls, tokens], axis=1) + weights["pos_embedding"]
    x = x + np.fft.fft2(norm(x, BLOCK + "0.norm")).real
    hidden = dense(norm(x, BLOCK + "1.norm"), BLOCK + "1.fn.net.0")
    x = x + dense(jax.nn.gelu(hidden, approximate=False), BLOCK + "1.fn.net.3")
    return dense(norm(x[:, 0], "mlp_head.0"), "mlp_head.1")


def main():
    model = vix.FNet(
        image_size=8, patch_size=4, num_classes=3, dim=8, depth=1, mlp_dim=16, embed=PatchEmbed,
        reference=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        np.savez(path, **{name: rng.normal(size=shape) for name, shape in SHAPES.items()})
        weights = dict(np.load(path))
    variables = vix.convert.from_torch(model, weights)
    print(f"{len(weights)} arrays became {vix.count_params(variables)} parameters")

    img = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)  # NHWC
    patches = img.reshape(2, 2, 4, 2, 4, 3).swapaxes(2, 3).reshape(2, 4, 48)
    logits = model.apply(variables, img)
    print(f"largest difference of a logit {np.abs(logits - published(weights, patches)).max():.1e}")

    weights["mlp_head.weight"] = weights.pop("mlp_head.1.weight")
    try:
        vix.convert.from_torch(model, weights)
    except ValueError as error:
        print("with one name changed:", error)


if __name__ == "__main__":
    main()
