"""Encoders without embedding or head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.attention import Linear, Nystrom
from vix_flax.models import Nystromformer, Transformer

x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8)), jnp.float32)


def transformer(**fields):
    return Transformer(**dict(dim=8, depth=2, heads=2, mlp_dim=12, dim_head=4) | fields)


def nystromformer(**fields):
    return Nystromformer(**dict(dim=8, depth=1, heads=2, dim_head=4, num_landmarks=3) | fields)


def shapes(module):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: leaf.shape, shapes["params"])


def block_of(module):
    """The first block, its parts built."""
    blocks = []
    jax.eval_shape(
        lambda: module.init(jax.random.key(0), method=lambda m: blocks.append(m.blocks[0]))
    )
    return blocks[0]


def test_blocks_and_a_norm():
    params = shapes(transformer())
    assert params.keys() == {"blocks_0", "blocks_1", "norm"}
    assert params["blocks_1"]["mixer"]["to_qkv"]["kernel"] == (8, 24)
    assert params["blocks_1"]["mlp"]["dense1"]["kernel"] == (8, 12)
    assert shapes(transformer(final_norm=False)).keys() == {"blocks_0", "blocks_1"}


def test_the_last_norm_is_behind_the_blocks():
    rng = np.random.default_rng(1)
    normed, bare = transformer(), transformer(final_norm=False)
    draw = lambda leaf: rng.normal(size=leaf.shape).astype("f4")
    params = jax.tree.map(draw, jax.eval_shape(normed.init, jax.random.key(0), x)["params"])
    ours, y = (np.asarray(jax.jit(m.apply)({"params": params}, x)) for m in (normed, bare))
    y = (y - y.mean(axis=-1, keepdims=True)) / np.sqrt(y.var(axis=-1, keepdims=True) + 1e-5)
    by_hand = y * params["norm"]["scale"] + params["norm"]["bias"]
    np.testing.assert_allclose(ours, by_hand, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "projects"),
    [
        ({}, True),
        (dict(heads=1, dim_head=8), False),
        (dict(heads=1, dim_head=8, project_out=True), True),
        (dict(heads=1, dim_head=4), True),
        (dict(project_out=False), False),
    ],
)
def test_one_head_as_wide_as_the_tokens_needs_no_projection(fields, projects):
    if fields.get("project_out") is False:
        assert block_of(transformer(**fields)).mixer.project_out is False
    else:
        assert ("to_out" in shapes(transformer(**fields))["blocks_0"]["mixer"]) == projects


def test_fields_reach_attention_and_mlps():
    options = {"num_landmarks": 3, "pinv_iterations": 1}
    module = transformer(attention=Nystrom, attention_options=options, reference=True, dropout=0.25,
                         dtype=jnp.bfloat16)  # fmt: skip
    block = block_of(module)
    core = block.mixer.core
    assert (core.num_landmarks, core.pinv_iterations, core.reference) == (3, 1, True)
    assert (block.mixer.out_dropout, block.dropout, block.drops_output) == (0.25, 0.25, True)
    assert block_of(transformer(dropout=0.25)).mixer.core.attention_dropout == 0.25
    assert jax.eval_shape(module.init_with_output, jax.random.key(0), x)[0].dtype == jnp.bfloat16
    assert hash(module) == hash(module.clone())


def test_any_attention_will_do():
    assert isinstance(block_of(transformer(attention=Linear)).mixer.core, Linear)


def test_a_nystromformer_has_wide_mlps_and_no_norm_at_the_end():
    params = shapes(nystromformer(depth=2))
    assert params.keys() == {"blocks_0", "blocks_1"}
    assert params["blocks_0"]["mlp"]["dense1"]["kernel"] == (8, 32)
    assert params["blocks_0"]["mixer"]["core"]["residual_conv"] == (33, 2)


def test_fields_of_a_nystromformer_reach_its_parts():
    module = nystromformer(pinv_iterations=2, attn_dropout=0.25, ff_dropout=0.5, reference=True,
                           attn_values_residual_conv_kernel=5)  # fmt: skip
    block = block_of(module)
    core = block.mixer.core
    assert (core.num_landmarks, core.pinv_iterations, core.residual_conv_kernel) == (3, 2, 5)
    assert core.reference
    assert (block.mixer.out_dropout, block.dropout, block.drops_output) == (0.25, 0.5, False)
    plain = block_of(nystromformer(attn_values_residual=False))
    assert plain.mixer.core.residual_conv_kernel == 0


@pytest.mark.parametrize(
    ("make", "field"),
    [
        *((transformer, field) for field in ("dim", "depth", "heads", "mlp_dim", "dim_head")),
        *((nystromformer, field) for field in ("dim", "depth", "heads", "dim_head")),
        (nystromformer, "num_landmarks"),
        (nystromformer, "pinv_iterations"),
    ],
)
def test_widths_must_be_positive(make, field):
    with pytest.raises(ValueError, match=f"{field}=-1 must be a"):
        make(**{field: -1})


@pytest.mark.parametrize(
    ("make", "field"),
    [(transformer, "dropout"), (nystromformer, "attn_dropout"), (nystromformer, "ff_dropout")],
)
def test_rates_are_below_one(make, field):
    with pytest.raises(ValueError, match=f"{field}=1 must be at least 0 and below 1"):
        make(**{field: 1})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(attention_options=3), "attention_options=3 must be a mapping"),
        (dict(attention="nystrom"), "'nystrom' is not a flax.linen Module class"),
        (dict(attention_options={"nothing": 1}), "Softmax has no field 'nothing'"),
    ],
)
def test_the_attention_is_checked_when_constructed(fields, message):
    with pytest.raises(ValueError, match=message):
        Transformer(dim=8, depth=1, heads=2, mlp_dim=8, **fields)
