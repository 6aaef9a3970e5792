"""T2T-ViT: windows become tokens, layer by layer."""

import jax
import numpy as np
import pytest
from tiny_models import images, tiny

import vix_flax as vix
from vix_flax.models import TokensToToken


def model(**fields):
    return tiny("t2t_vit_cifar", **fields)


def shapes(model):
    out, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images(model))
    )
    return out.shape, jax.tree.map(lambda leaf: leaf.shape, variables["params"])


@pytest.mark.parametrize(
    ("layers", "grids"),
    [
        (((7, 4), (3, 2), (3, 2)), [(6, 8), (3, 4), (2, 2)]),
        (((3, 2), (3, 1)), [(12, 16), (10, 14)]),
        (((3, 2),), [(12, 16)]),
        (((24, 1),), [(1, 9)]),
    ],
)
def test_windows_are_padded_by_half_a_stride(layers, grids):
    embed = TokensToToken(dim=8, t2t_layers=layers)
    assert embed.grids((24, 32)) == grids
    assert embed.grid((24, 32)) == grids[-1]
    out, _ = jax.eval_shape(
        embed.init_with_output, jax.random.key(0), np.zeros((1, 24, 32, 1), "f4")
    )
    assert out.shape == (1, *grids[-1], 8)


def test_between_two_unfoldings_is_a_transformer_as_wide_as_its_tokens():
    _, params = shapes(model(t2t_layers=((3, 2), (3, 1), (2, 1))))
    embedding = params["embedding"]
    assert embedding.keys() == {"transformer_0", "transformer_1", "dense"}
    for i, width in enumerate((2 * 9, 2 * 81)):
        transformer = embedding[f"transformer_{i}"]
        assert transformer.keys() == {"blocks_0", "norm"}
        mixer = transformer["blocks_0"]["mixer"]
        assert mixer == {"to_qkv": {"kernel": (width, 3 * width)}}  # one head, no projection
        assert transformer["blocks_0"]["mlp"]["dense1"]["kernel"] == (width, width)
    assert embedding["dense"]["kernel"] == (2 * 81 * 4, 16)


def test_one_unfolding_is_a_convolution():
    _, params = shapes(model(t2t_layers=((3, 2),)))
    assert params["embedding"].keys() == {"dense"}


def test_maps_of_all_unfoldings_are_known():
    assert model().grids == ((4, 6), (2, 4))
    assert model().grid == (2, 4)


def test_a_given_transformer_takes_the_place_of_blocks_and_norm():
    given = vix.Transformer(dim=16, depth=2, heads=1, mlp_dim=8, dim_head=4)
    fields = dict(depth=None, heads=None, mlp_dim=None, transformer=given)
    (out, params), (_, usual) = shapes(model(**fields)), shapes(model())
    assert out == (3, 5)
    assert params["transformer"].keys() == {"blocks_0", "blocks_1", "norm"}
    assert params.keys() == usual.keys() - {"blocks_0", "norm"} | {"transformer"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(patch_size=2), "patch_size=2: t2t_layers say how the image is cut"),
        (dict(depth=None), "^depth must be given, or a transformer"),
        (dict(depth=None, heads=None, mlp_dim=None), "depth, heads, mlp_dim must be given, or"),
        (dict(t2t_layers=(3, 2)), r"t2t_layers=\(3, 2\) must be \(kernel, stride\) pairs"),
        (dict(t2t_layers=((3, 2, 1),)), r"t2t_layers=\(\(3, 2, 1\),\) must be \(kernel, stride\)"),
        (dict(t2t_layers=((3, 0),)), r"t2t_layers=\(\(3, 0\),\) must be \(kernel, stride\) pairs"),
        (dict(t2t_layers=()), r"t2t_layers=\(\) leave nothing of \(8, 12\)"),
        (dict(t2t_layers=((9, 1),)), r"t2t_layers=\(\(9, 1\),\) leave nothing of \(8, 12\)"),
        (dict(transformer=3), r"transformer=3 must be a module that maps \(b, n, 16\)"),
        (
            dict(transformer=vix.Transformer(dim=8, depth=1, heads=1, mlp_dim=8)),
            "transformer has dim=8, the model dim=16: give both the same",
        ),
    ],
)
def test_fields_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        model(**fields)


def test_layers_may_be_lists():
    assert model(t2t_layers=[[3, 2], [3, 1]]) == model(t2t_layers=((3, 2), (3, 1)))


@pytest.mark.parametrize("layers", [3, (("a", 2),), ((3.5, 2),), ((3, 2, 1),)])
def test_layers_are_pairs_of_ints(layers):
    with pytest.raises(ValueError, match=r"t2t_layers=.* must be \(kernel, stride\) pairs"):
        tiny("t2t_vit_cifar", t2t_layers=layers)
