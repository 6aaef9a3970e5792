"""Attention cores: how queries, keys and values combine.

`core(q, k, v, *, train=False)`: q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e),
where k and v may have a single head that all query heads share. A core owns only its own
parameters.
"""

from vix_flax.attention.chunked import Chunked
from vix_flax.attention.linear import Linear
from vix_flax.attention.linformer import Linformer
from vix_flax.attention.nystrom import Nystrom
from vix_flax.attention.performer import Performer, redraw_features
from vix_flax.attention.softmax import Softmax

ATTENTIONS = {
    "softmax": Softmax,
    "chunked": Chunked,
    "nystrom": Nystrom,
    "performer": Performer,
    "linformer": Linformer,
    "linear": Linear,
}

__all__ = [
    "ATTENTIONS",
    "Chunked",
    "Linear",
    "Linformer",
    "Nystrom",
    "Performer",
    "Softmax",
    "redraw_features",
]
