"""Each attention alone against what one would write or import in torch, taking turns.

    pip install -e ".[bench]"
    python benchmarks/attention.py                       # 1024 and 4096 tokens
    python benchmarks/attention.py --cores nystrom --tokens 4096

Four heads of 32, float32, all cores; 16 images of 1024 tokens, 4 of 4096. Each side gets queries,
keys and values in the layout of its own models; projections before and after are left out.
Backward: gradients of them and of what the attention learns. See `benchmarks/README.md`.
"""

import peers
from turns import OURS, compare, parser, save_if_asked, serve

HEADS, WIDTH, TOKENS_IN_ALL = 4, 32, 16 * 1024
SIDES = (OURS, "torch", "torch_compile", "torch_sdpa")
KINDS = ("forward", "forward + backward")
LANDMARKS = 64  # Linformer's k, too
CORES = {
    "softmax": {},
    "nystrom": {"num_landmarks": LANDMARKS},
    "performer": {},
    "linformer": {"k": LANDMARKS},
    "linear": {},
}
MODULES = {
    "softmax": "torch",
    "nystrom": "vision_xformer.vision_nystromformer",
    "performer": "performer_pytorch",
    "linformer": "vision_xformer.vision_linformer",
    "linear": "torch",
}
PACKAGES = (*peers.PACKAGES, "performer-pytorch")


def ours(core, tokens, backward):
    import jax

    from vix_flax.attention import ATTENTIONS

    batch = TOKENS_IN_ALL // tokens
    mesh = peers.mesh_for(batch)
    module = ATTENTIONS[core](**CORES[core])
    # As ViL has them, Linformer's keys are its values: one head that serves all.
    heads = (HEADS, 1) if core == "linformer" else (HEADS, HEADS, HEADS)
    host = {str(i): deviates(batch, tokens, h, WIDTH) for i, h in enumerate(heads)}
    host["gradient"] = deviates(batch, tokens, HEADS, WIDTH)
    *inputs, gradient = peers.put(host, mesh).values()
    one = [x[:1] for x in host.values()]
    variables = jax.jit(module.init)(jax.random.key(0), one[0], one[1], one[len(heads) - 1])
    variables = peers.put_copies(dict(variables), mesh)
    params = variables.pop("params", {})

    def apply(params, inputs):
        return module.apply({"params": params, **variables}, inputs[0], inputs[1], inputs[-1])

    def with_gradients(params, inputs, gradient):
        out, pull = jax.vjp(apply, params, inputs)
        return out, pull(gradient)

    both, forward = jax.jit(with_gradients), jax.jit(apply)
    if backward:
        return lambda: jax.block_until_ready(both(params, inputs, gradient))
    return lambda: jax.block_until_ready(forward(params, inputs))


def theirs(side, core, tokens, backward):
    import torch

    batch = TOKENS_IN_ALL // tokens
    function, shapes, params = torch_core(side, core, batch, tokens)
    inputs = [torch.from_numpy(deviates(*shape)).requires_grad_(backward) for shape in shapes]
    if side == "torch_compile":
        function = torch.compile(function)

    gradient = torch.ones_like(function(*inputs))

    def forward():
        with torch.inference_mode():
            function(*inputs)

    def both():
        out = function(*inputs)
        torch.autograd.grad(out, [*inputs, *params], gradient)

    return both if backward else forward


def torch_core(side, core, batch, tokens):
    """A function of tensors, their shapes, and what it learns."""
    heads = (batch, tokens, HEADS, WIDTH)
    flat = (batch, tokens, HEADS * WIDTH)
    if core == "softmax":
        softmax = sdpa if side == "torch_sdpa" else plain_softmax
        return between_projections(softmax), [heads] * 3, []
    if core == "linear":
        return between_projections(linear), [heads] * 3, []
    if core == "performer":
        from performer_pytorch import FastAttention

        return between_projections(FastAttention(WIDTH)), [heads] * 3, []
    if core == "linformer":
        from vision_xformer.vision_linformer import LinformerSelfAttention

        options = dict(k=LANDMARKS, heads=HEADS, one_kv_head=True, share_kv=True)
        module = bare(LinformerSelfAttention(HEADS * WIDTH, tokens, **options))
        return module, [flat, (batch, tokens, WIDTH)], list(module.parameters())
    from vision_xformer.vision_nystromformer import NystromAttention

    options = dict(dim_head=WIDTH, heads=HEADS, num_landmarks=LANDMARKS)
    module = bare(NystromAttention(HEADS * WIDTH, **options))
    return module, [(batch, tokens, 3 * HEADS * WIDTH)], list(module.parameters())


def between_projections(function):
    """Takes what projections give, (b, n, h, d), and gives what the next one takes; `function` has
    heads in front: its models turn tokens and heads, which the other two modules do themselves.
    """
    return lambda *inputs: (
        function(*(x.transpose(1, 2) for x in inputs)).transpose(1, 2).contiguous()
    )


def bare(module):
    """Without the projections, so that inputs are queries, keys and values already."""
    from torch.nn import Identity

    for name in ("to_qkv", "to_q", "to_k", "to_out"):
        if hasattr(module, name):
            setattr(module, name, Identity())
    return module


def sdpa(q, k, v):
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(q, k, v)


def plain_softmax(q, k, v):
    return (q @ k.transpose(-1, -2) * WIDTH**-0.5).softmax(dim=-1) @ v


def linear(q, k, v):
    from torch.nn.functional import elu

    q, k = elu(q) + 1, elu(k) + 1
    normaliser = q @ k.sum(dim=-2)[..., None] + 1e-6
    return q @ (k.transpose(-1, -2) @ v) / normaliser


def deviates(*shape):
    import numpy as np

    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def build(side, **spec):
    return ours(**spec) if side == OURS else theirs(side, **spec)


def sides_of(core, asked):
    return [side for side in asked if side != "torch_sdpa" or core == "softmax"]


def main():
    flags = parser(__doc__, rounds=3)
    flags.add_argument("--cores", nargs="+", choices=CORES, default=CORES)
    flags.add_argument("--tokens", nargs="+", type=int, default=(1024, 4096))
    flags.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    args = flags.parse_args()
    if args.worker:
        side, core = args.worker["side"], args.worker["core"]
        return serve(lambda: peers.load(side, MODULES[core]), lambda: build(**args.worker))
    specs = {
        f"attention, {tokens} tokens, {kind}": {
            core: {
                side: dict(side=side, core=core, tokens=tokens, backward=kind != KINDS[0])
                for side in sides_of(core, args.sides)
            }
            for core in args.cores
        }
        for tokens in args.tokens
        for kind in KINDS
    }
    save_if_asked(args, "attention_cpu", PACKAGES, compare(__file__, specs, args))
    return None


if __name__ == "__main__":
    main()
