"""LeViT's attention by hand: BatchNorms, wide values, a bias for each offset."""

from functools import partial

import jax
import numpy as np
import pytest

from vix_flax.attention import Linear, Softmax
from vix_flax.mixers import LeViTAttention

x = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype("f4")


def mixer(core=None, **fields):
    return LeViTAttention(core or Softmax(), heads=2, dim_out=7, dim_key=4, dim_value=3, **fields)


def drawn(module):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.uniform(0.2, 1, leaf.shape).astype("f4") / 2, shapes)


def normed(variables, name, x):
    params, stats = (variables[part][f"norm_{name}"] for part in ("params", "batch_stats"))
    x = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return x * params["scale"] + params["bias"]


@pytest.mark.parametrize(("core", "stride"), [(Softmax(), 1), (Softmax(), 2), (Linear(), 2)])
def test_it_projects_attends_with_a_bias_and_projects_back(core, stride):
    module = mixer(core, stride=stride)
    variables = drawn(module)
    params = variables["params"]
    asking = x[:, ::stride, ::stride]

    def project(x, name, width):
        y = normed(variables, name, x @ params[f"to_{name}"]["kernel"])
        return y.reshape(2, -1, 2, width)

    given = {}
    if getattr(core, "takes_bias", False):
        table = params["distance_bias"]["table"]
        at = lambda stride: [(i, j) for i in range(0, 5, stride) for j in range(0, 4, stride)]
        bias = [[table[abs(i - k) * 4 + abs(j - l)] for k, l in at(1)] for i, j in at(stride)]
        given["bias"] = 2 * np.asarray(bias).transpose(2, 0, 1)  # √dim_key
    assert ("distance_bias" in params) == bool(given)
    q, k, v = project(asking, "q", 4), project(x, "k", 4), project(x, "v", 3)
    out = jax.jit(lambda *qkv: jax.nn.gelu(core.apply({}, *qkv, **given), approximate=False))(
        q, k, v
    )
    out = np.asarray(out).reshape(*asking.shape[:3], 6) @ params["to_out"]["kernel"]
    by_hand = normed(variables, "out", out + params["to_out"]["bias"])
    result = jax.jit(module.apply)(variables, x)
    assert result.shape == (2, *((5, 4) if stride == 1 else (3, 2)), 7)
    np.testing.assert_allclose(result, by_hand, rtol=0, atol=1e-5)


def test_it_starts_as_zero():
    out, _ = jax.jit(mixer().init_with_output)(jax.random.key(0), x)
    np.testing.assert_array_equal(out, np.zeros((2, 5, 4, 7)))


def test_training_updates_every_batch_norm_and_drops_the_output():
    module = mixer(out_dropout=0.5)
    variables = drawn(module)
    train = partial(module.apply, train=True, mutable=["batch_stats"])
    out, updated = jax.jit(train)(variables, x, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose((out == 0).mean(), 0.5, atol=0.1)
    for name in ("q", "k", "v", "out"):
        stats = (variables["batch_stats"], updated["batch_stats"])
        before, after = (part[f"norm_{name}"]["mean"] for part in stats)
        assert (np.abs(before - after) > 1e-4).any(), name
