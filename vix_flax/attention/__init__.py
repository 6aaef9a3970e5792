"""Attention cores: how queries, keys and values combine.

`core(q, k, v, *, train=False)`: q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e),
where k and v may have a single head that all query heads share, and n and m may differ. A core owns
only its own parameters. One that forms scores says `takes_bias` and takes `bias`, to be added to
them; the others go without.
"""

from vix_flax.attention.chunked import Chunked
from vix_flax.attention.linear import Linear
from vix_flax.attention.linformer import Linformer
from vix_flax.attention.nystrom import Nystrom
from vix_flax.attention.performer import Performer, redraw_features
from vix_flax.attention.re_attention import ReAttention
from vix_flax.attention.softmax import Softmax
from vix_flax.attention.talking_heads import TalkingHeads

ATTENTIONS = {
    "softmax": Softmax,
    "chunked": Chunked,
    "nystrom": Nystrom,
    "performer": Performer,
    "linformer": Linformer,
    "linear": Linear,
    "re_attention": ReAttention,
    "talking_heads": TalkingHeads,
}

__all__ = [
    "ATTENTIONS",
    "Chunked",
    "Linear",
    "Linformer",
    "Nystrom",
    "Performer",
    "ReAttention",
    "Softmax",
    "TalkingHeads",
    "redraw_features",
]
