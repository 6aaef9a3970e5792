"""Attention between depth-wise convolutions."""

from functools import partial

import jax
import numpy as np
import pytest

from vix_flax.attention import Linear, Softmax
from vix_flax.mixers import ConvAttention

x = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype("f4")


def drawn(module):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype("f4") / 2, shapes)


def projected(params, stats, x, kernel, stride):
    """Depth-wise convolution, BatchNorm by its running statistics, dense layer."""
    taps, p = params["depthwise"]["kernel"][:, :, 0], kernel // 2
    padded = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
    rows, columns = (range(0, side, stride) for side in x.shape[1:3])
    out = np.zeros((len(x), len(rows), len(columns), x.shape[-1]))
    for a, i in enumerate(rows):
        for b, j in enumerate(columns):
            window = padded[:, i : i + kernel, j : j + kernel]
            out[:, a, b] = (window * taps).sum(axis=(1, 2))
    norm = params["norm"]
    out = (out - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * norm["scale"] + norm["bias"]
    return out.reshape(len(x), -1, x.shape[-1]) @ params["dense"]["kernel"]


@pytest.mark.parametrize(
    ("core", "kernel", "stride", "keys"),
    [(Softmax(), 3, 2, 6), (Softmax(), 1, 3, 4), (Linear(), 5, 1, 20)],
)
def test_neighbours_are_mixed_before_queries_meet_thinned_out_keys(core, kernel, stride, keys):
    module = ConvAttention(core, heads=2, dim_head=4, proj_kernel=kernel, kv_proj_stride=stride)
    variables = drawn(module)
    params, stats = variables["params"], variables["batch_stats"]
    q = projected(params["to_q"], stats["to_q"]["norm"], x, kernel, 1).reshape(2, 20, 2, 4)
    kv = projected(params["to_kv"], stats["to_kv"]["norm"], x, kernel, stride)
    k, v = (part.reshape(2, keys, 2, 4) for part in np.split(kv, 2, axis=-1))
    q, k, v = (part.astype("f4") for part in (q, k, v))
    attended = np.asarray(jax.jit(core.apply)({}, q, k, v)).reshape(2, 5, 4, 8)
    by_hand = attended @ params["to_out"]["kernel"] + params["to_out"]["bias"]
    out = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(out, by_hand, rtol=0, atol=1e-4)


def test_only_the_output_projection_has_a_bias():
    shapes = jax.tree.map(lambda leaf: leaf.shape, drawn(ConvAttention(Softmax(), 2, 4))["params"])
    conv, norm = {"kernel": (3, 3, 1, 6)}, {"scale": (6,), "bias": (6,)}
    assert shapes == {
        "to_q": {"depthwise": conv, "norm": norm, "dense": {"kernel": (6, 8)}},
        "to_kv": {"depthwise": conv, "norm": norm, "dense": {"kernel": (6, 16)}},
        "to_out": {"kernel": (8, 6), "bias": (6,)},
    }


def test_training_updates_both_batch_norms_and_drops_the_output():
    module = ConvAttention(Softmax(), 2, 4, out_dropout=0.5)
    variables = drawn(module)
    train = partial(module.apply, train=True, mutable=["batch_stats"])
    out, updated = jax.jit(train)(variables, x, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose((out == 0).mean(), 0.5, atol=0.1)
    before, after = variables["batch_stats"], updated["batch_stats"]
    changed = jax.tree.map(lambda a, b: bool((np.abs(a - b) > 1e-4).all()), before, after)
    both = {"norm": {"mean": True, "var": True}}
    assert changed == {"to_q": both, "to_kv": both}
