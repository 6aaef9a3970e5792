"""PiT: stages, and what halves the map between them."""

import jax
import numpy as np
import pytest
from tiny_models import images, tiny

from vix_flax.mixers import Fourier
from vix_flax.models.pit import TokenPool


def model(**fields):
    return tiny("pit_cifar", **fields)


def shapes(model, **given):
    out, variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images(model), **given)
    )
    return out.shape, jax.tree.map(lambda leaf: leaf.shape, variables["params"])


def test_the_map_halves_and_the_width_doubles():
    pit = model(image_size=(20, 12), depth=(1, 1, 1))
    assert pit.grids == ((9, 5), (5, 3), (3, 2))
    assert pit.num_features == 64
    assert shapes(pit, method="tokens")[0] == (3, 1 + 45, 16)
    features, params = shapes(pit.clone(num_classes=0))
    assert features == (3, 64)
    assert params["token_pools_0"]["depthwise"]["kernel"] == (3, 3, 1, 32)
    assert params["token_pools_1"]["cls"]["kernel"] == (32, 64)
    assert "token_pools_2" not in params


@pytest.mark.parametrize(("heads", "each"), [(2, (2, 2, 2)), ((1, 2, 4), (1, 2, 4)),
                                             ((1, 3), (1, 3, 3))])  # fmt: skip
def test_stages_have_their_depths_and_heads(heads, each):
    depth = (1, 3, 2)
    _, params = shapes(model(image_size=(16, 16), depth=depth, heads=heads))
    for i in range(3):
        stage = params[f"stages_{i}"]
        assert stage.keys() == {f"blocks_{j}" for j in range(depth[i])}  # and no norm
        block = stage["blocks_0"]
        assert block["mixer"]["to_qkv"]["kernel"] == (16 * 2**i, 3 * 8 * each[i])
        assert block["mlp"]["dense1"]["kernel"] == (16 * 2**i, 24)


def test_the_class_token_goes_past_the_convolutions():
    pool = TokenPool((3, 2))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 4)).astype("f4")
    variables = jax.eval_shape(pool.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype("f4"), variables)
    call = jax.jit(pool.apply)
    out = np.asarray(call(variables, x))
    assert out.shape == (2, 1 + 2 * 1, 8)
    cls = variables["params"]["cls"]
    np.testing.assert_allclose(out[:, 0], x[:, 0] @ cls["kernel"] + cls["bias"], atol=1e-5)
    other = x.copy()
    other[:, 0] += 1
    np.testing.assert_array_equal(call(variables, other)[:, 1:], out[:, 1:])
    other = x.copy()
    other[:, -1] += 1  # position (2, 1): seen by (1, 0), not by (0, 0)
    changed = np.abs(np.asarray(call(variables, other)) - out).max(axis=(0, 2)) > 0
    assert changed.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(depth=3), r"depth=3 must say the blocks of each stage, e\.g\. \(2, 6, 4\)"),
        (dict(depth=()), r"depth=\(\) must be a positive int, or several"),
        (dict(depth=(2, 0)), r"depth=\(2, 0\) must be a positive int, or several"),
        (dict(heads=(1, 2, 3)), r"heads=\(1, 2, 3\) has more values than there are stages \(2\)"),
        (dict(heads=(1, "2")), r"heads=\(1, '2'\) must be a positive int, or several"),
        (dict(pool="mean"), "pool='mean' is unknown here; use 'cls'"),
        (dict(position="rotary"), "position='rotary' is unknown here"),
        (dict(patch_size=(2, 4)), r"patch_size=\(2, 4\) must be square, at least 2"),
        (dict(patch_size=1), r"patch_size=\(1, 1\) must be square, at least 2"),
        (dict(patch_size=8), r"patch_size=8 does not divide image_size=\(8, 12\)"),
    ],
)
def test_fields_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        model(**fields)


def test_a_list_of_depths_is_as_good():
    assert model(depth=[1, 1]) == model(depth=(1, 1))


@pytest.mark.parametrize("field", ["qkv_bias", "mixer"])
def test_what_it_does_not_use_is_refused(field):
    value = {"qkv_bias": True, "mixer": Fourier}[field]
    with pytest.raises(ValueError, match=f"{field} has no effect here"):
        tiny("pit_cifar", **{field: value})
