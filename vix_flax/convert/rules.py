"""Where each published state dict keeps what a model needs: one rename table a family.

A table maps a pattern over our module paths to the torch modules that hold the same thing. Several
alternatives are separated by `|`: the first whose names all exist is taken. Several modules joined
by `+` are concatenated along their outputs (queries, keys and values in one matrix).
"""

from flax import linen as nn

from vix_flax.models import CCX, CvX, FNet2D, LeViX
from vix_flax.zoo import FNet, HybridMLPMixer, ImageNetHybridViN, MLPMixer, NanoViT

Table = dict[str, str]

VIX: Table = {
    r"(cls_token|pos_embedding)": r"\1",
    r"embedding/norm_in": "to_patch_embedding.1",
    r"embedding/dense": "to_patch_embedding.2|to_patch_embedding.1",
    r"embedding/norm_out": "to_patch_embedding.3",
    r"embedding/conv1": "to_patch_embedding.0",
    r"embedding/conv2": "to_patch_embedding.1",
    r"embedding/conv3": "to_patch_embedding.2",
    r"blocks_(\d+)/norm1": r"transformer.layers.\1.0.norm",
    r"blocks_(\d+)/mixer/to_qkv": (
        r"transformer.layers.\1.0.fn.to_qkv"
        r"|transformer.layers.\1.0.fn.to_q+transformer.layers.\1.0.fn.to_k"
        r"+transformer.layers.\1.0.fn.to_v"
        r"|transformer.layers.\1.0.fn.to_q+transformer.layers.\1.0.fn.to_kv"
        r"|transformer.layers.\1.0.fn.to_q+transformer.layers.\1.0.fn.to_k"
    ),
    r"blocks_(\d+)/mixer/to_out": (
        r"transformer.layers.\1.0.fn.to_out.0|transformer.layers.\1.0.fn.to_out"
    ),
    r"blocks_(\d+)/mixer/core/(proj_[kv])": r"transformer.layers.\1.0.fn.\2",
    r"blocks_(\d+)/mixer/core/residual_conv": r"transformer.layers.\1.0.fn.res_conv.weight",
    r"blocks_(\d+)/mixer/core/projection": (
        r"transformer.layers.\1.0.fn.fast_attention.projection_matrix"
    ),
    r"blocks_(\d+)/norm2": r"transformer.layers.\1.1.norm",
    r"blocks_(\d+)/mlp/dense1": r"transformer.layers.\1.1.fn.net.0",
    r"blocks_(\d+)/mlp/dense2": r"transformer.layers.\1.1.fn.net.3",
    r"head/norm": "mlp_head.0",
    r"head/dense": "mlp_head.1",
}

# The pip package's FNet calls its transformer a token mixer.
FNET: Table = {
    pattern: f"{names}|{names.replace('transformer.', 'token_mixer.')}"
    for pattern, names in VIX.items()
}

IMAGENET: Table = {
    **VIX,
    r"embedding/dense": "stem.0",
    r"embedding/norm_out": "stem.3",
    r"head/norm": "head.0",
    r"head/dense": "head.1",
}

NANO: Table = {
    r"(cls_token|pos_embedding)": r"\1",
    r"embedding/dense": "patch_embedding",
    r"embedding/conv1": "patch_embedding.0",
    r"embedding/conv2": "patch_embedding.2",
    r"embedding/conv3": "patch_embedding.4",
    r"blocks_(\d+)/norm1": r"encoders.\1.norm1",
    r"blocks_(\d+)/mixer/to_qkv": (
        r"encoders.\1.attention.q_proj+encoders.\1.attention.k_proj+encoders.\1.attention.v_proj"
    ),
    r"blocks_(\d+)/mixer/to_out": (r"encoders.\1.attention.o_proj|encoders.\1.attention.out_proj"),
    r"blocks_(\d+)/norm2": r"encoders.\1.norm2",
    r"blocks_(\d+)/mlp/dense1": r"encoders.\1.feed_forward.0",
    r"blocks_(\d+)/mlp/dense2": r"encoders.\1.feed_forward.3",
    r"head/norm": "mlp_head.0",
    r"head/dense": "mlp_head.1",
}

CCX_: Table = {
    r"pos_embedding": "classifier.positional_emb",
    r"norm": "classifier.norm",
    r"pool/score": "classifier.attention_pool",
    r"classifier": "classifier.fc",
    r"blocks_(\d+)/norm1": r"classifier.blocks.\1.pre_norm",
    r"blocks_(\d+)/mixer/to_qkv": (
        r"classifier.blocks.\1.self_attn.qkv|classifier.blocks.\1.self_attn.to_qkv"
        r"|classifier.blocks.\1.self_attn.to_q+classifier.blocks.\1.self_attn.to_k"
        r"+classifier.blocks.\1.self_attn.to_v"
    ),
    r"blocks_(\d+)/mixer/to_out": (
        r"classifier.blocks.\1.self_attn.proj|classifier.blocks.\1.self_attn.to_out.0"
        r"|classifier.blocks.\1.self_attn.to_out"
    ),
    r"blocks_(\d+)/mixer/core/residual_conv": r"classifier.blocks.\1.self_attn.res_conv.weight",
    r"blocks_(\d+)/mixer/core/projection": (
        r"classifier.blocks.\1.self_attn.fast_attention.projection_matrix"
    ),
    r"blocks_(\d+)/norm2": r"classifier.blocks.\1.norm1",
    r"blocks_(\d+)/mlp/dense1": r"classifier.blocks.\1.linear1",
    r"blocks_(\d+)/mlp/dense2": r"classifier.blocks.\1.linear2",
}

FNET2D: Table = {
    r"conv1": "conv.0",
    r"conv2": "conv.1",
    r"blocks_(\d+)/norm": r"layers.\1.ff.0",
    r"blocks_(\d+)/mlp/dense1": r"layers.\1.ff.1.net.0",
    r"blocks_(\d+)/mlp/dense2": r"layers.\1.ff.1.net.3",
    r"classifier": "pool.2",
}


def _attention(ours: str, theirs: str) -> Table:
    """The names that the Nyström and Performer modules have wherever they are used."""
    return {
        f"{ours}/to_qkv": f"{theirs}.to_qkv|{theirs}.to_q+{theirs}.to_k+{theirs}.to_v",
        f"{ours}/to_out": f"{theirs}.to_out.0|{theirs}.to_out",
        f"{ours}/core/residual_conv": f"{theirs}.res_conv.weight",
        f"{ours}/core/projection": f"{theirs}.fast_attention.projection_matrix",
    }


def _channel_norm(ours: str, theirs: str) -> Table:
    return {f"{ours}/scale": f"{theirs}.g", f"{ours}/bias": f"{theirs}.b"}


def levix(model: LeViX) -> Table:
    """LeViN and LeViP: transformers of a stage and between two alternate in their backbone."""
    table = {
        **{rf"stem/conv{i + 1}": f"conv_embedding.{i}" for i in range(3)},
        "classifier": "mlp_head",
        "distill_head": "distill_head",
    }
    blocks = []
    for stage, depth in enumerate(model._each("depth")):
        blocks += [f"backbone.{2 * stage}.layers.{i}" for i in range(depth)]
        blocks.append(f"backbone.{2 * stage + 1}.layers.0")  # between this stage and the next
    for block, theirs in enumerate(blocks[:-1]):
        table |= _attention(f"blocks_{block}/mixer", f"{theirs}.0")
        table[f"blocks_{block}/mlp/dense1"] = f"{theirs}.1.net.0"
        table[f"blocks_{block}/mlp/dense2"] = f"{theirs}.1.net.3"
    return table


def cvx(model: CvX) -> Table:
    """CvN and CvP: three stages of (convolution, norm, transformer) in one `Sequential`."""
    table = {"classifier": "layers.5"}
    for stage, name in enumerate(("s1", "s2", "s3")):
        table[f"convs_{stage}"] = f"layers.{stage}.0"
        table |= _channel_norm(f"norms_{stage}", f"layers.{stage}.1")
        for i in range(getattr(model, f"{name}_depth")):
            ours, theirs = f"blocks_{stage}_{i}", f"layers.{stage}.2.layers.{i}"
            table |= _attention(f"{ours}/mixer", f"{theirs}.0.fn")
            table |= _channel_norm(f"{ours}/norm1", f"{theirs}.0.norm")
            table |= _channel_norm(f"{ours}/norm2", f"{theirs}.1.norm")
            table[f"{ours}/mlp/dense1"] = f"{theirs}.1.fn.net.0"
            table[f"{ours}/mlp/dense2"] = f"{theirs}.1.fn.net.3"
    return table


def mlp_mixer(model: MLPMixer) -> Table:
    """MLP-Mixer is one flat `Sequential`, so its names are positions that depend on the depth."""
    first = 4 if isinstance(model, HybridMLPMixer) else 2
    table = {
        r"embedding/dense": "1",
        **{rf"embedding/conv{i + 1}": f"{i}" for i in range(3)},
        r"norm": f"{first + model.depth}",
        r"head/dense": f"{first + model.depth + 2}",
    }
    for i in range(model.depth):
        for half, (norm, mlp) in enumerate([("norm1", "mixer/mlp"), ("norm2", "mlp")]):
            table[f"blocks_{i}/{norm}"] = f"{first + i}.{half}.norm"
            table[f"blocks_{i}/{mlp}/dense1"] = f"{first + i}.{half}.fn.0"
            table[f"blocks_{i}/{mlp}/dense2"] = f"{first + i}.{half}.fn.3"
    return table


def table_for(model: nn.Module) -> Table:
    """The rename table of the model's family."""
    if isinstance(model, MLPMixer):
        return mlp_mixer(model)
    if isinstance(model, LeViX):
        return levix(model)
    if isinstance(model, CvX):
        return cvx(model)
    if isinstance(model, CCX):
        # Layers of the tokenizer are counted from 0 there and from 1 here.
        layers = range(model.n_conv_layers)
        convs = {f"tokenizer/conv{i + 1}": f"tokenizer.conv_layers.{i}.0" for i in layers}
        return {**CCX_, **convs}
    if isinstance(model, FNet2D):
        return FNET2D
    if isinstance(model, NanoViT):
        return NANO
    if isinstance(model, FNet):
        return FNET
    return IMAGENET if isinstance(model, ImageNetHybridViN) else VIX


def not_read(model: nn.Module) -> set[str]:
    """Names that a published state dict has and this model does without."""
    if isinstance(model, CCX) and model.positional_embedding != "learnable":
        return {"classifier.positional_emb"}  # the sine table
    if getattr(model, "unused_positions", False) and not model.reference:
        return {"pos_embedding"}
    return set()
