"""CvT: three stages, each with fields of its own."""

import jax
import numpy as np
import pytest
from tiny_models import tiny

from vix_flax.attention import Softmax

STAGES = ("s1", "s2", "s3")
FIELDS = (
    "emb_dim", "emb_kernel", "emb_stride", "proj_kernel", "kv_proj_stride", "heads", "depth",
    "mlp_mult",
)  # fmt: skip


def model(**fields):
    return tiny("cvt_cifar", **fields)


def shapes(model, size=(8, 12), **given):
    img = np.zeros((2, *size, 2), "f4")
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), img, **given))
    return out.shape, jax.tree.map(lambda leaf: leaf.shape, variables["params"])


def test_each_stage_reads_its_own_fields():
    own = dict(emb_dim=(6, 10, 14), emb_kernel=(7, 5, 3), proj_kernel=(1, 3, 5), heads=(1, 2, 3),
               depth=(1, 2, 1), mlp_mult=(2, 3, 4))  # fmt: skip
    fields = {f"s{i + 1}_{name}": values[i] for name, values in own.items() for i in range(3)}
    _, params = shapes(model(**fields))
    width = 2
    for i in range(3):
        dim, kernel = own["emb_dim"][i], own["emb_kernel"][i]
        assert params[f"convs_{i}"]["kernel"] == (kernel, kernel, width, dim)
        assert params[f"norms_{i}"]["scale"] == (dim,)
        blocks = {name for name in params if name.startswith(f"blocks_{i}_")}
        assert blocks == {f"blocks_{i}_{j}" for j in range(own["depth"][i])}
        mixer, mlp = (params[f"blocks_{i}_0"][part] for part in ("mixer", "mlp"))
        taps, heads = own["proj_kernel"][i], own["heads"][i]
        assert mixer["to_q"]["depthwise"]["kernel"] == (taps, taps, 1, dim)
        assert mixer["to_kv"]["dense"]["kernel"] == (dim, 2 * heads * 8)
        assert mlp["dense1"]["kernel"] == (dim, own["mlp_mult"][i] * dim)
        width = dim


@pytest.mark.parametrize(("size", "grid"), [((16, 24), (2, 3)), ((17, 33), (3, 5))])
def test_any_image_size_shrinks_by_the_strides(size, grid):
    cvt = model(s1_emb_stride=4, s2_emb_stride=2)
    tokens = (2, *(-(-side // 4) for side in size), 16)
    assert shapes(cvt, size, method="tokens")[0] == tokens
    encoded = shapes(cvt, size, method=lambda m, img: m.encode(m.tokens(img)))
    assert encoded[0] == (2, *grid, 16)


def test_strides_thin_the_keys_of_their_stage():
    seen = []

    class Seen(Softmax):
        def __call__(self, q, k, v, *, train=False):
            seen.append((q.shape[1], k.shape[1]))
            return q

    shapes(model(attention=Seen, s1_kv_proj_stride=1, s2_kv_proj_stride=2, s3_kv_proj_stride=3))
    assert seen == [(96, 96), (96, 24), (96, 12)]


def test_features_are_the_mean_of_the_last_map():
    assert model().num_features == 16
    assert shapes(model(num_classes=0))[0] == (2, 16)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 16)).astype("f4")
    pooled = model().apply({"params": {}}, x, method="pooled")
    np.testing.assert_allclose(pooled, x.mean(axis=(1, 2)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("field", [f"{s}_{name}" for s in STAGES for name in FIELDS] + ["dim_head"])
def test_every_width_must_be_positive(field):
    with pytest.raises(ValueError, match=f"{field}=0 must be a positive int"):
        model(**{field: 0})


def test_dropout_is_a_rate():
    with pytest.raises(ValueError, match="dropout=1 must be at least 0 and below 1"):
        model(dropout=1)
    mixer = model(dropout=0.25).mixer("s2")
    assert (mixer.out_dropout, mixer.core.attention_dropout) == (0.25, 0.25)


def test_projections_keep_the_map():
    with pytest.raises(ValueError, match="s2_proj_kernel=4 must be odd"):
        tiny("cvt_cifar", s2_proj_kernel=4)
