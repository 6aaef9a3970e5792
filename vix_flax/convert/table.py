"""What a rename table is, and the entries that several families share.

A table maps a pattern over our module paths to the torch modules that hold the same thing. Several
alternatives are separated by `|`: the first whose names all exist is taken. Several modules joined
by `+` are concatenated along their outputs (queries, keys and values in one matrix).
"""

Table = dict[str, str]


def linear_attention(ours: str, theirs: str) -> Table:
    """The names that the Nyström and Performer modules have wherever they are used."""
    return {
        f"{ours}/to_qkv": f"{theirs}.to_qkv|{theirs}.to_q+{theirs}.to_k+{theirs}.to_v",
        f"{ours}/to_out": f"{theirs}.to_out.0|{theirs}.to_out",
        f"{ours}/core/residual_conv": f"{theirs}.res_conv.weight",
        f"{ours}/core/projection": f"{theirs}.fast_attention.projection_matrix",
    }


def channel_norm(ours: str, theirs: str) -> Table:
    """A norm over the channels of a map, written by hand there."""
    return {f"{ours}/scale": f"{theirs}.g", f"{ours}/bias": f"{theirs}.b"}
