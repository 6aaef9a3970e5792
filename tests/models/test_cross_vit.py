"""CrossViT: two branches, joined by their class tokens."""

import jax
import numpy as np
import pytest
from tiny_models import images, tiny


def model(**fields):
    return tiny("cross_vit_cifar", **fields)


def shapes(model, **given):
    out, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images(model), **given)
    )
    return out, jax.tree.map(lambda leaf: leaf.shape, variables["params"])


def test_each_branch_has_patches_of_its_size_behind_a_class_token():
    assert model().grids == ((4, 6), (2, 3))
    assert model(image_size=8).grids == ((4, 4), (2, 2))
    tokens, params = shapes(model(), method="tokens")
    assert [x.shape for x in tokens] == [(3, 1 + 24, 16), (3, 1 + 6, 12)]
    assert params["embeddings_0"]["pos_embedding"] == (1, 25, 16)
    assert params["embeddings_1"]["pos_embedding"] == (1, 7, 12)


def test_features_are_both_class_tokens_side_by_side():
    features, params = shapes(model(num_classes=0))
    assert features.shape == (3, model().num_features) == (3, 16 + 12)
    assert not any("head" in name for name in params)
    rng = np.random.default_rng(0)
    sm, lg = (rng.normal(size=(2, n, c)).astype("f4") for n, c in ((4, 16), (3, 12)))
    pooled = model().apply({"params": {}}, (sm, lg), method="pooled")
    np.testing.assert_array_equal(pooled, np.concatenate([sm[:, 0], lg[:, 0]], axis=1))


def test_logits_of_both_branches_are_added():
    features = np.random.default_rng(0).normal(size=(3, 28)).astype("f4")
    logits, kernels = [], {}
    for i, width in enumerate((16, 12)):
        kernels[f"heads_{i}"] = np.random.default_rng(i).normal(size=(width, 5)).astype("f4")
    part = {"heads_0": features[:, :16], "heads_1": features[:, 16:]}
    params = {
        name: {
            "norm": {"scale": np.ones(len(kernel), "f4"), "bias": np.zeros(len(kernel), "f4")},
            "dense": {"kernel": kernel, "bias": np.full(5, 2, "f4")},
        }
        for name, kernel in kernels.items()
    }
    for name, kernel in kernels.items():
        x = part[name] - part[name].mean(axis=1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + 1e-5)
        logits.append(x @ kernel + 2)
    out = jax.jit(lambda x: model().apply({"params": params}, x, method="head"))(features)
    np.testing.assert_allclose(out, sum(logits), rtol=0, atol=1e-5)


def test_encoders_and_exchanges_take_turns():
    _, params = shapes(model(depth=2, cross_attn_depth=3, sm_enc_depth=2))
    assert {name for name in params if name.startswith("encoders")} == {
        "encoders_0_0", "encoders_0_1", "encoders_1_0", "encoders_1_1"
    }  # fmt: skip
    crosses = [name for name in params if name.startswith("crosses")]
    assert len(crosses) == 2 * 3 * 2
    assert {"blocks_0", "blocks_1", "norm"} == params["encoders_0_0"].keys()
    assert {"blocks_0", "norm"} == params["encoders_1_1"].keys()


@pytest.mark.parametrize(("sm_dim", "lg_dim", "projects"), [(16, 12, True), (12, 12, False)])
def test_class_tokens_ask_in_the_other_branchs_width(sm_dim, lg_dim, projects):
    _, params = shapes(model(sm_dim=sm_dim, lg_dim=lg_dim))
    cross = params["crosses_0_0_0"]  # of the small branch
    assert ("project_in" in cross) == ("project_out" in cross) == projects
    assert cross["attention"]["to_q"]["kernel"] == (lg_dim, 16)
    assert params["crosses_0_0_1"]["attention"]["to_q"]["kernel"] == (sm_dim, 16)
    if projects:
        assert cross["project_in"]["kernel"] == (16, 12)
        assert params["crosses_0_0_1"]["project_in"]["kernel"] == (12, 16)


def test_every_width_is_of_its_branch():
    _, params = shapes(model(sm_enc_heads=3, sm_enc_mlp_dim=7, lg_enc_dim_head=5))
    sm, lg = (params[f"encoders_0_{i}"]["blocks_0"] for i in (0, 1))
    assert sm["mixer"]["to_qkv"]["kernel"] == (16, 3 * 3 * 8)
    assert sm["mlp"]["dense1"]["kernel"] == (16, 7)
    assert lg["mixer"]["to_qkv"]["kernel"] == (12, 3 * 2 * 5)
    assert lg["mlp"]["dense1"]["kernel"] == (12, 24)


def test_a_single_head_as_wide_as_its_branch_keeps_its_projection():
    _, params = shapes(model(sm_enc_heads=1, sm_enc_dim_head=16))
    assert "to_out" in params["encoders_0_0"]["blocks_0"]["mixer"]


@pytest.mark.parametrize(
    "field",
    [
        *(f"{branch}_{width}" for branch in ("sm", "lg") for width in
          ("dim", "enc_depth", "enc_heads", "enc_mlp_dim", "enc_dim_head")),
        "cross_attn_depth", "cross_attn_heads", "cross_attn_dim_head", "depth",
    ],
)  # fmt: skip
def test_every_width_must_be_positive(field):
    with pytest.raises(ValueError, match=f"{field}=0 must be a positive int"):
        model(**{field: 0})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(dropout=1), "dropout=1 must be at least 0 and below 1"),
        (dict(emb_dropout=-0.1), r"emb_dropout=-0\.1 must be at least 0 and below 1"),
        (dict(sm_patch_size=3), r"patch_size=\(3, 3\) does not divide image_size=\(8, 12\)"),
        (dict(lg_patch_size=(8, 5)), r"patch_size=\(8, 5\) does not divide image_size=\(8, 12\)"),
        (dict(lg_patch_size="x"), "lg_patch_size='x' must be a positive int or"),
        (dict(image_size=0), "image_size=0 must be a positive int or"),
    ],
)
def test_fields_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        model(**fields)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"vix_flax\.resize_positions"):
        jax.eval_shape(model().init, jax.random.key(0), np.zeros((1, 12, 8, 2), "f4"))
