"""CrossFormer: windows near and far in turn, and the images they fit."""

import jax
import numpy as np
import pytest
from tiny_models import tiny

from vix_flax.models import CrossFormer
from vix_flax.models.image import example_image


def model(**fields):
    return tiny("crossformer_cifar", **fields)


def shapes(model, size=(8, 12), **given):
    img = np.zeros((2, *size, 2), "f4")
    out, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), img, **given))
    return out.shape, jax.tree.map(lambda leaf: leaf.shape, variables["params"])


@pytest.mark.parametrize(
    ("near", "far", "strides", "smallest"),
    [
        (2, 2, (2, 1, 1, 1), 4),
        (7, (8, 4, 2, 1), (4, 2, 2, 2), 224),
        ((4, 4, 4, 2), (4, 4, 2, 1), (2, 2, 2, 2), 32),
        (3, (2, 1), (1, 1, 1, 1), 6),
        ((1, 1, 5, 1), 1, (2, 1, 3, 1), 30),
    ],
)
def test_the_smallest_image_has_whole_windows_in_every_stage(near, far, strides, smallest):
    kernels = tuple((stride,) for stride in strides)
    crossformer = CrossFormer(
        dim=32, depth=1, local_window_size=near, global_window_size=far,
        cross_embed_strides=strides, cross_embed_kernel_sizes=kernels,
    )  # fmt: skip
    assert crossformer.smallest_image == smallest
    assert example_image(crossformer).shape == (1, smallest, smallest, 3)


def test_multiples_of_the_smallest_image_work_and_others_name_the_window():
    assert model().smallest_image == 4
    assert shapes(model(), (4, 8))[0] == (2, 5)
    with pytest.raises(ValueError, match="a map of 3 × 4 positions has no whole windows of 2 × 2"):
        shapes(model(), (6, 8))


def test_every_stage_has_pairs_of_near_and_far_windows():
    crossformer = model(depth=(1, 2, 1, 1), local_window_size=2, global_window_size=(4, 2, 4, 1))
    found = {}

    def collect(m):
        for stage, blocks in enumerate(m.blocks):
            found[stage] = [(b.mixer.long, b.mixer.window, b.drops_output) for b in blocks]

    crossformer.init(jax.random.key(0), method=collect)
    near = (False, 2, False)
    assert found == {
        0: [near, (True, 4, False)],
        1: [near, (True, 2, False)] * 2,
        2: [near, (True, 4, False)],
        3: [near, (True, 1, False)],
    }


def test_widths_of_a_stage():
    _, params = shapes(model(dim=(8, 12, 20, 32), dim_head=8))
    for i, (dim, heads) in enumerate(((8, 1), (12, 1), (20, 2), (32, 4))):
        block = params[f"blocks_{i}_0"]
        assert block["mixer"]["attention"]["to_qkv"]["kernel"] == (dim, 3 * 8 * heads)
        assert block["mlp"]["dense1"]["kernel"] == (dim, 4 * dim)
        assert block["mixer"]["position_bias"]["dense1"]["kernel"] == (2, dim // 4)
        assert params[f"embeddings_{i}"].keys() == {"conv0", "conv1"}
    assert model(dim=(8, 12, 20, 32)).num_features == 32


def test_tokens_are_the_first_embedding_and_the_map_shrinks():
    crossformer = model(cross_embed_strides=(2, 1, 2, 1),
                        cross_embed_kernel_sizes=((2,), (1,), (2, 4), (1,)))  # fmt: skip
    assert shapes(crossformer, (8, 16), method="tokens")[0] == (2, 4, 8, 16)
    encode = lambda m, img: m.encode(m.tokens(img))
    assert shapes(crossformer, (8, 16), method=encode)[0] == (2, 2, 4, 24)


def test_dropout_reaches_the_weights_and_the_mlps():
    crossformer, found = model(attn_dropout=0.25, ff_dropout=0.5), []

    def collect(m):
        block = m.blocks[0][0]
        found.append((block.mixer.attention.core.attention_dropout, block.dropout))

    crossformer.init(jax.random.key(0), method=collect)
    assert found == [(0.25, 0.5)]


@pytest.mark.parametrize(("attention", "notes"), [("softmax", 0), ("linear", 1)])
def test_attention_without_scores_goes_without_the_bias_and_says_so(attention, notes):
    bias = "this attention has no scores to add to: CrossFormer's dynamic position bias is left out"
    assert model(attention=attention).notes == (bias,) * notes


@pytest.mark.parametrize(
    "field",
    ["dim", "depth", "global_window_size", "local_window_size", "cross_embed_strides", "dim_head"],
)
def test_every_width_must_be_positive(field):
    with pytest.raises(ValueError, match=rf"{field}=.*0.* must be a positive int"):
        model(**{field: (1, 1, 0, 1) if field == "cross_embed_strides" else 0})


FIVE = (2, 2, 2, 2, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(attn_dropout=1), "attn_dropout=1 must be at least 0 and below 1"),
        (dict(ff_dropout=-1), "ff_dropout=-1 must be at least 0 and below 1"),
        *(({field: FIVE}, rf"{field}=\(2, .* has more values than there are stages \(4\)")
          for field in ("dim", "depth", "global_window_size", "local_window_size")),
        (dict(cross_embed_strides=(2, 2)), r"cross_embed_strides=\(2, 2\) must have 4 entries"),
        (
            dict(cross_embed_kernel_sizes=((2,),)),
            r"cross_embed_kernel_sizes=\(\(2,\),\) must have 4 entries",
        ),
        (dict(dim=(16, 4)), r"dim=\(16, 4\) must be at least dim_head=8, a head's"),
        (
            dict(cross_embed_kernel_sizes=((2, 4), (1, 2), (1,), (1,))),
            r"cross_embed_kernel_sizes=\(1, 2\) with stride 1: each kernel must be",
        ),
        (
            dict(cross_embed_kernel_sizes=((2, 4, 6, 8, 10, 12), (1,), (1,), (1,))),
            "dim=16 is too small for 6 scales",
        ),
    ],
)  # fmt: skip
def test_fields_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        model(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(cross_embed_strides=2), "cross_embed_strides=2 must have 4 entries"),
        (dict(cross_embed_kernel_sizes=(4, 2, 2, 2)), "must be the kernels of each stage"),
        (
            dict(dim=2, dim_head=2, cross_embed_kernel_sizes=((2,), (1,), (1,), (1,))),
            "dim=2 must be at least 4",
        ),
    ],
)
def test_stages_are_described_one_by_one(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny("crossformer_cifar", **fields)
