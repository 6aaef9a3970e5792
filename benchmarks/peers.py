"""What is compared with what: our models, and the published torch classes with the same fields.

Each pair has equally many parameters (`python benchmarks/peers.py` counts them). Hybrid ViN and CCN
are in their paper's scripts alone, on no package index: here they are put together from published
classes, as the paper says.
"""

import importlib
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple
from unittest import mock

from turns import DEVICES, OURS, parser, save_if_asked, serve

FIELDS = dict(
    image_size=32, num_classes=10, dim=128, depth=4, heads=4, mlp_dim=256, dim_head=32,
    dropout=0.0, emb_dropout=0.0,
)  # fmt: skip
SIDES = (OURS, "torch", "torch_compile", "torch_sdpa")
TORCH_NAMES = {"cpu": "cpu", "gpu": "cuda"}
PACKAGES = ("vix_flax", "jax", "flax", "optax", "torch", "vit-pytorch", "vision-xformer")


class Peer(NamedTuple):
    preset: str  # ours
    module: str  # theirs
    build: str | Callable  # its class, or a function of the module and fields
    own_fields: bool = False  # the preset's, not FIELDS
    unknown: tuple[str, ...] = ()  # fields that theirs does not have
    rates: tuple[str, ...] = ("dropout",)  # fields that are 0 although the preset has none of them


def hybrid_vin(module, patch_size, dim, **fields):
    """The package's ViN with three convolutions for its patch embedding."""
    from einops.layers.torch import Rearrange
    from torch import nn

    model = module.ViN(patch_size=patch_size, dim=dim, **fields)
    widths = (3, 32, 64, dim)
    convs = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
    model.to_patch_embedding = nn.Sequential(*convs, Rearrange("b c h w -> b (h w) c"))
    return model


def ccn(module, image_size, stride, stochastic_depth, **fields):
    """vit_pytorch's CCT with the attention of vision_xformer's ViN, 64 landmarks."""
    from vision_xformer.vision_nystromformer import NystromAttention

    first, *rest = stride
    assert set(rest) == {1}
    # Theirs has one stride for all convolutions: it is made for the map that the first one leaves.
    fields = dict(img_size=image_size // first, stride=1, **fields)
    model = module.CCT(stochastic_depth_rate=stochastic_depth, **fields)
    model.tokenizer.conv_layers[0][0].stride = (first, first)
    dim, heads = fields["embedding_dim"], fields["num_heads"]
    for block in model.classifier.blocks:
        block.self_attn = NystromAttention(dim, dim // heads, heads, num_landmarks=64)
    return model


PEERS = {
    "vit": Peer("dual_norm_vit", "vit_pytorch.vit", "ViT"),  # patches between LayerNorms, as theirs
    "vin": Peer("vin", "vision_xformer", "ViN"),
    "vip": Peer("vip", "vision_xformer", "ViP"),
    "vil": Peer("vil", "vision_xformer", "ViL"),
    "fnet": Peer("fnet", "vision_xformer", "FNet", unknown=("heads", "dim_head")),
    "hybrid_vin": Peer("hybrid_vin", "vision_xformer", hybrid_vin, own_fields=True),
    "ccn": Peer(
        "ccn",
        "vit_pytorch.cct",
        ccn,
        own_fields=True,
        rates=("dropout_rate", "attention_dropout", "stochastic_depth"),
    ),
    "fnet2d": Peer("fnet2d", "vision_xformer", "FNet2D", own_fields=True),
    "cvt": Peer("cvt_cifar", "vit_pytorch.cvt", "CvT", own_fields=True),
    "levit": Peer("levit_cifar", "vit_pytorch.levit", "LeViT", own_fields=True),
    "cait": Peer("cait_cifar", "vit_pytorch.cait", "CaiT", own_fields=True),
}
DTYPES = ("float32", "bfloat16")
FIVE = tuple(name for name, peer in PEERS.items() if not peer.own_fields)


def model_parser(doc, **defaults):
    """The flags of a comparison of models."""
    flags = parser(doc, **defaults)
    flags.add_argument("--models", nargs="+", choices=PEERS, help="default: all of the patch size")
    flags.add_argument("--patch-size", type=int, default=4, help=f"of {', '.join(FIVE)}")
    flags.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    flags.add_argument("--device", choices=DEVICES, default="cpu", help="of every side")
    flags.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="that both compute in")
    return flags


def model_specs(args, batch):
    """{model: {side: what its worker needs}}."""
    # At another patch size, the models with fields of their own would be measured once more.
    names = args.models or (PEERS if args.patch_size == 4 else FIVE)
    return {
        name: {
            side: dict(
                side=side,
                name=name,
                fields=fields(name, args.patch_size),
                batch=batch,
                dtype=args.dtype,
                device=args.device,
            )
            for side in args.sides
            if side != "torch_sdpa" or name == "vit"
        }
        for name in names
    }


def save_models(args, what, measured):
    models = {name: fields(name, args.patch_size) for rows in measured.values() for name in rows}
    name = f"{what}_{args.device}_patch{args.patch_size}"
    name += "" if args.dtype == DTYPES[0] else f"_{args.dtype}"
    save_if_asked(args, name, PACKAGES, measured, dtype=args.dtype, fields=models)


def fields(name, patch_size):
    """Both sides' fields. Nothing is dropped, neither units nor (CaiT) layers."""
    if not PEERS[name].own_fields:
        return {**FIELDS, "patch_size": patch_size}
    from vix_flax.presets import PRESETS

    preset = PRESETS[PEERS[name].preset][1]
    rates = [*(field for field in preset if "dropout" in field), *PEERS[name].rates]
    return {**preset, **dict.fromkeys(rates, 0.0)}


def serve_model(spec, ours, theirs):
    """A side's process: `ours(name, fields, batch, dtype)` and `theirs(…)` return the call.

    `theirs(side, device, name, fields, batch, dtype)` has torch's name of the device.
    """
    side, name, device = (spec[key] for key in ("side", "name", "device"))
    # JSON has lists where fields are tuples.
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in spec["fields"].items()}
    given = (name, fields, spec["batch"], spec["dtype"])
    build = lambda: ours(*given) if side == OURS else theirs(side, TORCH_NAMES[device], *given)
    most_held = {"cpu": None, "gpu": our_bytes if side == OURS else torch_bytes}[device]
    serve(lambda: load(side, PEERS[name].module), build, most_held)


def load(side, module):
    """Imports what a side needs (torch's: `module`, too), and gives it all cores."""
    if side == OURS:
        load_ours()
    else:
        load_torch(side == "torch_compile")
        importlib.import_module(module)


def our_bytes():
    """The most bytes of the GPU that arrays and programs have held so far."""
    import jax

    return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]


def torch_bytes():
    import torch

    return torch.cuda.max_memory_allocated()


def load_ours():
    import jax
    import optax  # noqa: F401

    from vix_flax.cores import use_all_cores
    from vix_flax.training import train_step  # noqa: F401

    use_all_cores()
    jax.devices()


def load_torch(compiles):
    import torch
    from einops._torch_specific import allow_ops_in_compiled_graph

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32, as is XLA's default there
    if compiles:
        import torch._inductor.compile_fx

        allow_ops_in_compiled_graph()
    # vit_pytorch's __init__ imports torchvision, which not every torch build has a match for.
    sys.modules["torchvision"] = mock.MagicMock()
    import vit_pytorch  # noqa: F401

    del sys.modules["torchvision"]


def our_model(name, fields, dtype="float32"):
    """Parameters are float32 in any case."""
    import vix_flax as vix

    computes_in = {} if dtype == "float32" else {"dtype": dtype}
    return vix.create_model(PEERS[name].preset, **fields, **computes_in)


def torch_model(side, name, fields):
    """The published class with its attention as published, compiled, or by torch's own function.

    In float32; `computing_in` says what it computes in.
    """
    peer = PEERS[name]
    module = importlib.import_module(peer.module)
    if side == "torch_sdpa":
        module.Attention.forward = by_sdpa
    given = {k: v for k, v in fields.items() if k not in peer.unknown}
    if callable(peer.build):
        model = peer.build(module, **given)
    else:
        model = getattr(module, peer.build)(**given)
    if side == "torch_compile":
        model.compile()
    return model


def computing_in(dtype, device):
    """A context in which torch's forward passes compute in this dtype."""
    import torch

    return torch.autocast(device, dtype=torch.bfloat16, enabled=dtype != "float32")


def finish(device):
    """Waits for what torch's GPU still has to do."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def by_sdpa(self, x):
    """For vit_pytorch's `Attention.forward`: the same, never writing out its weights."""
    from torch.nn.functional import scaled_dot_product_attention

    b, n, _ = x.shape
    qkv = self.to_qkv(self.norm(x)).view(b, n, 3, self.heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    out = scaled_dot_product_attention(q, k, v, scale=self.scale)
    return self.to_out(out.transpose(1, 2).reshape(b, n, -1))


def mesh_for(batch):
    """All cores that can share the batch; None: just one."""
    from vix_flax.training.mesh import make_mesh

    mesh = make_mesh(None, batch)
    return mesh if mesh.size > 1 else None


def put(arrays, mesh):
    """Host arrays of a batch on the devices, each image on one of them."""
    import jax

    from vix_flax.training.mesh import put_batch

    return put_batch(arrays, mesh) if mesh else jax.device_put(arrays)


def put_copies(tree, mesh):
    """Arrays on every device."""
    import jax

    from vix_flax.training.mesh import put_whole

    return put_whole(jax.device_get(tree), mesh) if mesh else tree


def images(batch, size):
    import numpy as np

    return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)


def torch_images(batch, size, device):
    import torch

    return torch.from_numpy(images(batch, size)).permute(0, 3, 1, 2).contiguous().to(device)


def main():
    """Parameters of both sides."""
    load_ours()
    load_torch(compiles=False)
    import jax

    import vix_flax as vix

    for name in PEERS:
        both = fields(name, patch_size=4)
        img = images(1, both.get("image_size", 32))
        shapes = jax.eval_shape(our_model(name, both).init, jax.random.key(0), img)
        theirs = sum(p.numel() for p in torch_model("torch", name, both).parameters())
        print(f"{name:10} ours {vix.count_params(shapes['params']):9,}  torch {theirs:9,}")


if __name__ == "__main__":
    main()
