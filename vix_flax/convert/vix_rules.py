"""Where the state dicts of the ViX scripts, of vision_xformer and of nanovit keep things."""

from vix_flax.convert.table import Table
from vix_flax.models import CCX
from vix_flax.zoo import HybridMLPMixer, MLPMixer

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

COMPACT: Table = {
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


def ccx(model: CCX) -> Table:
    """CCT, CCN and CCP; layers of the tokenizer are counted from 0 there and from 1 here."""
    layers = range(model.n_conv_layers)
    return {**COMPACT, **{f"tokenizer/conv{i + 1}": f"tokenizer.conv_layers.{i}.0" for i in layers}}


FNET2D: Table = {
    r"conv1": "conv.0",
    r"conv2": "conv.1",
    r"blocks_(\d+)/norm": r"layers.\1.ff.0",
    r"blocks_(\d+)/mlp/dense1": r"layers.\1.ff.1.net.0",
    r"blocks_(\d+)/mlp/dense2": r"layers.\1.ff.1.net.3",
    r"classifier": "pool.2",
}


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
