"""The encoder of x-transformers: carried scores, gated MLPs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.models import Encoder
from vix_flax.models.x_encoder import CarriedAttention

x = np.random.default_rng(0).normal(size=(2, 6, 8)).astype("f4")


def encoder(**fields):
    return Encoder(**dict(dim=8, depth=2, heads=2, attn_dim_head=4, ff_mult=2) | fields)


def drawn(module, *inputs):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4") / 2, shapes)


@pytest.mark.parametrize("carried", [False, True])
def test_scores_of_the_layer_before_are_added_and_handed_on(carried):
    module = CarriedAttention(heads=2, dim_head=4)
    before = np.random.default_rng(2).normal(size=(2, 2, 6, 6)).astype("f4") if carried else None
    params = drawn(module, x, before)
    assert params["to_qkv"].keys() == {"kernel"}
    q, k, v = np.moveaxis((np.asarray(x) @ params["to_qkv"]["kernel"]).reshape(2, 6, 3, 2, 4), 2, 0)
    scores = np.einsum("bnhd,bmhd->bhnm", q, k) / 2 + (before if carried else 0)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    attended = np.einsum("bhnm,bmhd->bnhd", weights, v).reshape(2, 6, 8)
    by_hand = attended @ params["to_out"]["kernel"] + params["to_out"]["bias"]
    out, handed_on = jax.jit(module.apply)({"params": params}, x, before)
    np.testing.assert_allclose(out, by_hand, rtol=0, atol=1e-5)
    np.testing.assert_allclose(handed_on, scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("residual_attn", [False, True])
def test_queries_of_the_first_layer_steer_the_second_if_scores_are_carried(residual_attn):
    """Values of the first layer are 0 and so nothing else of its attention goes on."""
    module = encoder(residual_attn=residual_attn)
    params = drawn(module, x)
    to_qkv = params["blocks_0"]["mixer"]["to_qkv"]
    kernel = to_qkv["kernel"] * np.repeat([1, 1, 0], 8).astype("f4")
    call = jax.jit(module.apply)
    to_qkv["kernel"] = kernel
    before = call({"params": params}, x)
    to_qkv["kernel"] = kernel * np.repeat([-3, 1, 0], 8).astype("f4")
    change = np.abs(np.asarray(call({"params": params}, x)) - before).max()
    assert change > 1e-2 if residual_attn else change < 1e-6


@pytest.mark.parametrize(("ff_glu", "hidden"), [(False, 16), (True, 32)])
def test_mlps_may_be_gated_and_there_is_no_norm_at_the_end(ff_glu, hidden):
    params = drawn(encoder(ff_glu=ff_glu), x)
    assert params.keys() == {"blocks_0", "blocks_1"}
    assert params["blocks_1"].keys() == {"mixer", "mlp", "norm1", "norm2"}
    assert params["blocks_1"]["mlp"]["dense1"]["kernel"].shape == (8, hidden)
    assert params["blocks_1"]["mlp"]["dense2"]["kernel"].shape == (16, 8)


def test_blocks_are_residual():
    """Without output of attention and MLP the tokens go through as they are."""
    module = encoder()
    params = jax.tree.map(np.zeros_like, drawn(module, x))
    np.testing.assert_array_equal(jax.jit(module.apply)({"params": params}, x), x)


@pytest.mark.parametrize(("field", "silent"), [("attn_dropout", "mlp"), ("ff_dropout", "mixer")])
def test_dropout_is_of_weights_and_hidden_units_and_in_training_alone(field, silent):
    """One branch gives nothing; of the other no single feature is dropped."""
    module = encoder(**{field: 0.5}, depth=1)
    params = drawn(module, x)
    last = params["blocks_0"][silent]["dense2" if silent == "mlp" else "to_out"]
    last.update(jax.tree.map(np.zeros_like, last))
    train = partial(module.apply, train=True, rngs={"dropout": jax.random.key(0)})
    plain, out = (np.asarray(jax.jit(f)({"params": params}, x)) for f in (module.apply, train))
    assert (np.abs(out - plain).max(axis=-1) > 1e-4).all()
    assert (out != x).all()


@pytest.mark.parametrize("field", ["dim", "depth", "heads", "attn_dim_head", "ff_mult"])
def test_widths_must_be_positive(field):
    with pytest.raises(ValueError, match=f"{field}=0 must be a positive int"):
        encoder(**{field: 0})


@pytest.mark.parametrize("field", ["attn_dropout", "ff_dropout"])
def test_rates_are_below_one(field):
    with pytest.raises(ValueError, match=f"{field}=1 must be at least 0 and below 1"):
        encoder(**{field: 1})


def test_dtype_reaches_every_part():
    out = jax.eval_shape(encoder(dtype=jnp.bfloat16).apply, {"params": drawn(encoder(), x)}, x)
    half = jax.eval_shape(
        encoder(dtype=jnp.bfloat16).apply, {"params": drawn(encoder(), x)}, x.astype(jnp.bfloat16)
    )
    assert (out.dtype, half.dtype) == (jnp.float32, jnp.bfloat16)
