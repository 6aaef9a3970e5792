"""Where the state dicts of vit-pytorch, and of the ViX notebooks grown from it, keep things."""

from flax import linen as nn

from vix_flax.checks import per_stage
from vix_flax.convert.table import Table, channel_norm, linear_attention
from vix_flax.models import (
    CaiT,
    CrossFormer,
    CrossViT,
    CvT,
    CvX,
    EfficientViT,
    Encoder,
    LeViT,
    LeViX,
    Nystromformer,
    PiT,
    T2TViT,
    Transformer,
)
from vix_flax.zoo import DeepViT, DualNormViT


def _package_block(ours: str, attention: str, mlp: str) -> Table:
    """A block of vit-pytorch: each half brings its own norm."""
    return {
        f"{ours}/norm1": f"{attention}.norm",
        f"{ours}/mixer/to_qkv": (f"{attention}.to_qkv|{attention}.to_q+{attention}.to_kv"),
        f"{ours}/mixer/(to_q|to_kv)": rf"{attention}.\1",
        f"{ours}/mixer/to_out": f"{attention}.to_out.0",
        f"{ours}/mixer/core/mix_before": f"{attention}.mix_heads_pre_attn",
        f"{ours}/mixer/core/mix_after": (
            f"{attention}.mix_heads_post_attn|{attention}.reattn_weights"
        ),
        f"{ours}/mixer/core/norm_scale": f"{attention}.reattn_norm.1.weight",
        f"{ours}/mixer/core/norm_bias": f"{attention}.reattn_norm.1.bias",
        f"{ours}/norm2": f"{mlp}.net.0",
        f"{ours}/mlp/dense1": f"{mlp}.net.1",
        f"{ours}/mlp/dense2": f"{mlp}.net.4",
    }


def _package_transformer(ours: str, theirs: str, depth: int) -> Table:
    """vit-pytorch's `Transformer`; `ours` is the path before `blocks_0`, with its slash."""
    table = {f"{ours}norm": f"{theirs}.norm"}
    for i in range(depth):
        layer = f"{theirs}.layers.{i}"
        table |= _package_block(f"{ours}blocks_{i}", f"{layer}.0", f"{layer}.1")
    return table


PACKAGE_SHELL: Table = {
    r"(cls_token|pos_embedding)": r"\1",
    r"embedding/norm_in": "to_patch_embedding.1",
    r"embedding/dense": "to_patch_embedding.2",
    r"embedding/norm_out": "to_patch_embedding.3",
    r"head/norm": "mlp_head.0",
}


def vit(model: DualNormViT | DeepViT) -> Table:
    """ViT and DeepViT as vit-pytorch has them; a head without a norm is the dense layer itself."""
    return {
        **PACKAGE_SHELL,
        r"head/dense": "mlp_head.1|mlp_head",
        **_package_transformer("", "transformer", model.depth),
    }


def efficient(model: EfficientViT) -> Table:
    """The plug-ins that have a published counterpart."""
    table = {**PACKAGE_SHELL, r"head/dense": "mlp_head.1", **_plugin(model.transformer)}
    return table


def _plugin(transformer: nn.Module) -> Table:
    ours, theirs = "transformer/", "transformer"
    if isinstance(transformer, Transformer):
        return _package_transformer(ours, theirs, transformer.depth)
    table = {}
    for i in range(getattr(transformer, "depth", 0)):
        if isinstance(transformer, Nystromformer):
            block, layer = f"{ours}blocks_{i}", f"{theirs}.layers.{i}"
            table |= linear_attention(f"{block}/mixer", f"{layer}.0.fn") | {
                f"{block}/norm1": f"{layer}.0.norm",
                f"{block}/norm2": f"{layer}.1.norm",
                f"{block}/mlp/dense1": f"{layer}.1.fn.net.0",
                f"{block}/mlp/dense2": f"{layer}.1.fn.net.3",
            }
        elif isinstance(transformer, Encoder):  # attention and MLP are layers of their own
            attention, mlp = (f"{theirs}.layers.{2 * i + half}" for half in (0, 1))
            table |= {
                f"{ours}blocks_{i}/norm1": f"{attention}.0",
                f"{ours}blocks_{i}/mixer/to_qkv": (
                    f"{attention}.1.to_q+{attention}.1.to_k+{attention}.1.to_v"
                ),
                f"{ours}blocks_{i}/mixer/to_out": f"{attention}.1.to_out",
                f"{ours}blocks_{i}/norm2": f"{mlp}.0",
                f"{ours}blocks_{i}/mlp/dense1": f"{mlp}.1.net.0.proj|{mlp}.1.net.0.0",
                f"{ours}blocks_{i}/mlp/dense2": f"{mlp}.1.net.2",
            }
    return table


def cait(model: CaiT) -> Table:
    """CaiT: blocks of the patches, then of the class token, each half scaled."""
    table = {**PACKAGE_SHELL, r"head/dense": "mlp_head.1"}
    for kind, theirs, depth in (
        ("blocks", "patch_transformer", model.depth),
        ("cls_blocks", "cls_transformer", model.cls_depth),
    ):
        for i in range(depth):
            ours, layer = f"{kind}_{i}", f"{theirs}.layers.{i}"
            table |= _package_block(ours, f"{layer}.0.fn", f"{layer}.1.fn")
            table |= {f"{ours}/scale{half + 1}/scale": f"{layer}.{half}.scale" for half in (0, 1)}
    return table


def t2t(model: T2TViT) -> Table:
    """T2T-ViT: unfoldings, maps, transformers and a dense layer in one `Sequential`."""
    layers = len(model.t2t_layers)
    table = {
        r"(cls_token|pos_embedding)": r"\1",
        r"embedding/dense": f"to_patch_embedding.{4 * layers}",
        r"head/dense": "mlp_head",
    }
    for i in range(layers - 1):
        ours = f"embedding/transformer_{i}/"
        table |= _package_transformer(ours, f"to_patch_embedding.{4 * i + 3}", 1)
    if model.transformer is not None:
        return table | _plugin(model.transformer)
    return table | _package_transformer("", "transformer", model.depth)


def pit(model: PiT) -> Table:
    """PiT: transformers and pools take turns."""
    table = {
        r"(cls_token|pos_embedding)": r"\1",
        r"embedding/dense": "to_patch_embedding.2",
        r"head/norm": "mlp_head.0",
        r"head/dense": "mlp_head.1",
    }
    for i, depth in enumerate(model.depth):
        table |= _package_transformer(f"stages_{i}/", f"layers.{2 * i}", depth)
        table |= {
            f"token_pools_{i}/depthwise": f"layers.{2 * i + 1}.downsample.net.0",
            f"token_pools_{i}/dense": f"layers.{2 * i + 1}.downsample.net.1",
            f"token_pools_{i}/cls": f"layers.{2 * i + 1}.cls_ff",
        }
    return table


def cross_vit(model: CrossViT) -> Table:
    """CrossViT: everything twice, by branch."""
    table = {}
    for branch, name in enumerate(("sm", "lg")):
        shell = {**PACKAGE_SHELL, r"embedding/dense": "to_patch_embedding.2"}
        table |= {
            f"embeddings_{branch}/{ours}": f"{name}_image_embedder.{theirs}"
            for ours, theirs in shell.items()
        }
        table[f"heads_{branch}/norm"] = f"{name}_mlp_head.0"
        table[f"heads_{branch}/dense"] = f"{name}_mlp_head.1"
        for i in range(model.depth):
            theirs = f"multi_scale_encoder.layers.{i}"
            depth = getattr(model, f"{name}_enc_depth")
            table |= _package_transformer(f"encoders_{i}_{branch}/", f"{theirs}.{branch}", depth)
            for j in range(model.cross_attn_depth):
                ours, cross = f"crosses_{i}_{j}_{branch}", f"{theirs}.2.layers.{j}.{branch}"
                table[f"{ours}/(project_in|project_out)"] = rf"{cross}.\1"
                table[f"{ours}/norm"] = f"{cross}.fn.norm"
                table[f"{ours}/attention/(to_q|to_kv)"] = rf"{cross}.fn.\1"
                table[f"{ours}/attention/to_out"] = f"{cross}.fn.to_out.0"
    return table


def crossformer(model: CrossFormer) -> Table:
    """CrossFormer: a layer is short attention, MLP, long attention, MLP."""
    table = {"classifier": "to_logits.1"}
    for stage, depth in enumerate(per_stage(model, "depth", 4)):
        table[rf"embeddings_{stage}/conv(\d+)"] = rf"layers.{stage}.0.convs.\1"
        for block in range(2 * depth):
            ours = f"blocks_{stage}_{block}"
            layer = f"layers.{stage}.1.layers.{block // 2}"
            attention, mlp = (f"{layer}.{2 * (block % 2) + half}" for half in (0, 1))
            table |= channel_norm(f"{ours}/norm1", f"{attention}.norm")
            table |= channel_norm(f"{ours}/norm2", f"{mlp}.0")
            table[f"{ours}/mixer/attention/(to_qkv|to_out)"] = rf"{attention}.\1"
            table[f"{ours}/mlp/dense1"] = f"{mlp}.1"
            table[f"{ours}/mlp/dense2"] = f"{mlp}.4"
            for i in range(4):
                bias = f"{ours}/mixer/position_bias"
                table[f"{bias}/dense{i + 1}"] = f"{attention}.dpb.{3 * i}"
                table[f"{bias}/norm{i + 1}"] = f"{attention}.dpb.{3 * i + 1}"
    return table


def levit(model: LeViT) -> Table:
    """LeViT, LeViN and LeViP: transformers of a stage and between two alternate."""
    table = {
        **{rf"stem/conv{i + 1}": f"conv_embedding.{i}" for i in range(4)},
        "classifier": "mlp_head",
        "distill_head": "distill_head",
    }
    blocks = []
    for stage, depth in enumerate(per_stage(model, "depth", model.stages)):
        blocks += [f"backbone.{2 * stage}.layers.{i}" for i in range(depth)]
        blocks.append(f"backbone.{2 * stage + 1}.layers.0")  # between this stage and the next
    for block, theirs in enumerate(blocks[:-1]):
        mixer = f"blocks_{block}/mixer"
        if isinstance(model, LeViX):
            table |= linear_attention(mixer, f"{theirs}.0")
        else:
            table |= {
                f"{mixer}/to_([qkv])": rf"{theirs}.0.to_\1.0",
                f"{mixer}/norm_([qkv])": rf"{theirs}.0.to_\1.1",
                f"{mixer}/to_out": f"{theirs}.0.to_out.1",
                f"{mixer}/norm_out": f"{theirs}.0.to_out.2",
                f"{mixer}/distance_bias/table": f"{theirs}.0.pos_bias.weight",
            }
        table[f"blocks_{block}/mlp/dense1"] = f"{theirs}.1.net.0"
        table[f"blocks_{block}/mlp/dense2"] = f"{theirs}.1.net.3"
    return table


def cvt(model: CvT) -> Table:
    """CvT, CvN and CvP: three stages of (convolution, norm, transformer) in one `Sequential`."""
    thin = isinstance(model, CvX)
    table = {"classifier": "layers.5" if thin else "to_logits.2"}
    for stage, name in enumerate(("s1", "s2", "s3")):
        table[f"convs_{stage}"] = f"layers.{stage}.0"
        table |= channel_norm(f"norms_{stage}", f"layers.{stage}.1")
        for i in range(getattr(model, f"{name}_depth")):
            ours, theirs = f"blocks_{stage}_{i}", f"layers.{stage}.2.layers.{i}"
            table |= channel_norm(f"{ours}/norm1", f"{theirs}.0.norm")
            if thin:
                table |= linear_attention(f"{ours}/mixer", f"{theirs}.0.fn")
                table |= channel_norm(f"{ours}/norm2", f"{theirs}.1.norm")
                table[f"{ours}/mlp/dense1"] = f"{theirs}.1.fn.net.0"
                table[f"{ours}/mlp/dense2"] = f"{theirs}.1.fn.net.3"
                continue
            for place, layer in enumerate(("depthwise", "norm", "dense")):
                table[f"{ours}/mixer/(to_q|to_kv)/{layer}"] = rf"{theirs}.0.\1.net.{place}"
            table |= channel_norm(f"{ours}/norm2", f"{theirs}.1.net.0")
            table[f"{ours}/mixer/to_out"] = f"{theirs}.0.to_out.0"
            table[f"{ours}/mlp/dense1"] = f"{theirs}.1.net.1"
            table[f"{ours}/mlp/dense2"] = f"{theirs}.1.net.4"
    return table
