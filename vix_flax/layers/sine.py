"""Fixed sine and cosine positions (arXiv:1706.03762, §3.5)."""

import numpy as np


def sine_positions(tokens: int, dim: int) -> np.ndarray:
    """`(tokens, dim)` float32: sin (even i) or cos (odd i) of p / 10000^(2⌊i/2⌋/dim)."""
    angles = np.outer(np.arange(tokens), 10000.0 ** (-2 * (np.arange(dim) // 2) / dim))
    return np.where(np.arange(dim) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)
