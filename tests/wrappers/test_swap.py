"""A swapped attention keeps what was learned, and starts as near to the old one as it can."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from test_attention_maps import drawn
from tiny_models import tiny

import vix_flax as vix
from vix_flax.wrappers.swap import segment_averages


def test_every_projection_is_kept():
    model = tiny("vit", depth=2)
    variables, img = drawn(model)
    for to, own, options in (
        ("nystrom", "residual_conv", {}),
        ("linear", None, {}),
        ("linformer", "proj_k", {"k": 7}),
    ):
        swapped, new = vix.swap_attention(model, variables, to, **options)
        before, after = (traverse_util.flatten_dict(v["params"]) for v in (variables, new))
        for path, leaf in before.items():
            np.testing.assert_array_equal(after[path], leaf)
        assert {path[-1] for path in after.keys() - before.keys()} == ({own} if own else set())
        assert jax.eval_shape(swapped.apply, new, img).shape == (3, 5)


@pytest.mark.parametrize(
    ("to", "options", "atol"),
    [
        ("chunked", {}, 1e-5),
        ("talking_heads", {}, 1e-5),
        ("linformer", dict(k=25), 1e-5),
        ("nystrom", dict(num_landmarks=25, pinv_iterations=12), 5e-3),
        ("performer", dict(nb_features=4096), 0.05),
    ],
)
def test_the_swapped_model_answers_alike(to, options, atol):
    """Exactly, or as nearly as so many landmarks, rows or features allow."""
    model = tiny("dual_norm_vit")
    variables, img = drawn(model)
    swapped, new = vix.swap_attention(model, variables, to, **options)
    logits = jax.jit(swapped.apply)(new, img)
    np.testing.assert_allclose(logits, model.apply(variables, img), rtol=0, atol=atol)


def test_there_and_back_again():
    model = tiny("levit_cifar")
    variables, _ = drawn(model)
    away, there = vix.swap_attention(model, variables, "linear")
    assert not any("table" in path for path in traverse_util.flatten_dict(there))
    back, again = vix.swap_attention(away, there, "softmax")
    assert back == model
    tables = [v for p, v in traverse_util.flatten_dict(again).items() if p[-1] == "table"]
    assert tables
    assert not any(np.any(table) for table in tables)


def test_statistics_and_options():
    model = vix.create_model(
        "vin", image_size=(8, 8), patch_size=2, dim=16, depth=1, heads=2, attention="performer",
        nb_features=5,
    )  # fmt: skip
    variables, _ = drawn(model)
    swapped, new = vix.swap_attention(model, variables, "nystrom", num_landmarks=4)
    assert swapped.num_landmarks == 4
    assert not swapped.attention_options
    assert "features" not in new


def test_inside_an_efficient_vit():
    encoder = vix.Transformer(dim=8, depth=1, heads=2, dim_head=4, mlp_dim=8)
    model = vix.EfficientViT(image_size=8, patch_size=4, num_classes=3, dim=8, transformer=encoder)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    swapped, new = vix.swap_attention(model, variables, "performer")
    assert swapped.transformer.attention is vix.Performer
    out = jax.eval_shape(swapped.apply, new, jnp.ones((2, 8, 8, 3)))
    assert out.shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "to", "options", "message"),
    [
        ("vit", "nystorm", {}, "unknown attention 'nystorm'; did you mean 'nystrom'"),
        ("vit", "nystrom", dict(landmarks=3), "Nystrom has no field 'landmarks'"),
        ("vit", "linformer", dict(k=26), "k=26 rows for 25 tokens: use k=25 or fewer"),
        ("fnet", "nystrom", {}, "attention has no effect here: Fourier does not attend"),
        ("fnet2d", "nystrom", {}, "FNet2D has no attention to swap"),
    ],
)
def test_what_cannot_be_swapped(name, to, options, message):
    model = tiny(name)
    with pytest.raises(ValueError, match=message):
        vix.swap_attention(model, drawn(model)[0], to, **options)


def test_segments_average():
    weights = segment_averages(7, 3)
    np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-6)
    assert (weights > 0).sum() == 7
