"""Attention maps are what the attention does: applied to the values they give its output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny_models import compiled_once, tiny

import vix_flax as vix
from vix_flax.attention_maps import attention_maps, attention_rollout, over_image

LOW_RANK = ("nystrom", "performer", "linformer", "linear")
CORES = {
    "nystrom": dict(num_landmarks=5),
    "linformer": dict(k=7),
    "chunked": dict(query_chunk=4, key_chunk=7),
}


def seen_by_cores(model, variables, img):
    """(values, output) of every core, in the order they run."""

    @jax.jit
    def run(variables, img):
        seen = []

        def record(call, args, kwargs, context):
            out = call(*args, **kwargs)
            if context.module.name == "core" and context.method_name == "__call__":
                seen.append((args[2], out))
            return out

        with nn.intercept_methods(record):
            model.apply(variables, img)
        return seen

    return run(variables, img)


def drawn(model):
    """Variables and images, not compiled."""
    from tiny_models import Compiled, images

    holder = Compiled.__new__(Compiled)
    holder.model, holder.img = model, images(model)
    return holder.drawn(), holder.img


@pytest.mark.parametrize("name", vix.attention.ATTENTIONS)
def test_maps_times_values_is_the_output(name):
    model = tiny("dual_norm_vit", attention=name, depth=2, **CORES.get(name, {}))
    variables, img = drawn(model)
    maps = attention_maps(model, variables, img)
    assert maps.shape == (3, 2, 2, 25, 25)
    for layer, (values, out) in enumerate(seen_by_cores(model, variables, img)):
        ours = jnp.einsum("bhnm,bmhe->bnhe", maps[:, layer], values)
        np.testing.assert_allclose(ours, out, rtol=0, atol=1e-5)
    row = attention_maps(model, variables, img, kind="cls", query=3)
    np.testing.assert_allclose(row, maps[..., 3, :], rtol=0, atol=2e-6)
    if name in ("softmax", "chunked", "performer", "linear"):
        np.testing.assert_allclose(maps.sum(axis=-1), 1, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["vil", "levit", *(pytest.param(name, marks=pytest.mark.slow)
                       for name in ("cait", "crossformer", "cvt", "cross_vit"))],
)  # fmt: skip
def test_other_shapes(name):
    """One key head for all, strided keys, shrinking queries, windows, branches, class tokens."""
    model = tiny(name)
    variables, img = drawn(model)
    maps = attention_maps(model, variables, img)
    rows = attention_maps(model, variables, img, kind="cls", query=0)
    stacked = not isinstance(maps, tuple)
    if stacked:
        maps, rows = jnp.moveaxis(maps, 1, 0), jnp.moveaxis(rows, 1, 0)
    seen = seen_by_cores(model, variables, img)
    assert len(maps) == len(rows) == len(seen)
    for full, row, (values, out) in zip(maps, rows, seen, strict=True):
        np.testing.assert_allclose(row, full[:, :, 0], rtol=0, atol=2e-6)
        if name == "crossformer":  # all positions, nothing across windows
            assert full.shape[-1] == full.shape[-2] == 24
            assert (np.abs(full) > 0).sum(axis=-1).max() == 4
            continue
        values = jnp.broadcast_to(values, (*values.shape[:2], full.shape[1], values.shape[-1]))
        ours = jnp.einsum("bhnm,bmhe->bnhe", full, values)
        np.testing.assert_allclose(ours, out, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", LOW_RANK)
def test_factors_multiply_to_the_map(name):
    options = {"residual_conv_kernel": 0} if name == "nystrom" else {}
    model = tiny("dual_norm_vit", attention=name, **CORES.get(name, {}), **options)
    variables, img = drawn(model)
    ((left, right),) = attention_maps(model, variables, img, kind="factors")
    full = attention_maps(model, variables, img)[:, 0]
    np.testing.assert_allclose(left @ right, full, rtol=0, atol=1e-5)


def test_fourier_mixing_as_two_heads():
    model = tiny("fnet")
    variables, img = drawn(model)
    maps = attention_maps(model, variables, img)[0, 0]
    x = jax.random.normal(jax.random.key(0), (25, 16))
    spectrum = jnp.fft.fft(x, axis=1)
    ours = maps[0] @ spectrum.real - maps[1] @ spectrum.imag
    np.testing.assert_allclose(ours, jnp.fft.fft2(x).real, rtol=0, atol=1e-4)


def test_chosen_layers_and_no_others():
    model = tiny("vit", depth=3)
    variables, img = drawn(model)
    every = attention_maps(model, variables, img)
    assert every.shape[1] == 3
    np.testing.assert_array_equal(
        attention_maps(model, variables, img, layers=[-1, 0]), every[:, [2, 0]]
    )


def test_maps_of_a_rematted_model_in_bfloat16():
    model = tiny("vin", remat=True, dtype=jnp.bfloat16)
    variables, img = drawn(model)
    maps = attention_maps(model, variables, img)
    assert maps.dtype == jnp.float32
    exact = attention_maps(tiny("vin"), variables, img)
    np.testing.assert_allclose(maps, exact, rtol=0, atol=0.06)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("mlp_mixer", {}, "MLPMixer has no attention maps: nothing in it attends"),
        ("vit", dict(kind="rows"), "kind='rows' must be one of full, cls, factors"),
        ("vit", dict(layers=[1]), r"layers=\[1\]: there are 1, from 0 to 0"),
        ("vit", dict(kind="factors"), "Softmax attention has no low-rank factors: use kind='full'"),
    ],
)
def test_what_cannot_be_had(name, fields, message):
    model = tiny(name)
    variables, img = drawn(model)
    with pytest.raises(ValueError, match=message):
        attention_maps(model, variables, img, **fields)


def test_asking_changes_no_logits():
    held = compiled_once(tiny("vin"))
    attention_maps(held.model, held.variables, held.img)
    _, again = held.call(held.variables["params"], held.img)
    np.testing.assert_array_equal(again, held.logits)


def test_rollout_by_hand():
    maps = jnp.asarray(
        np.random.default_rng(0).dirichlet(np.ones(4), size=(2, 3, 2, 4)), jnp.float32
    )
    flow = [0.5 * (np.asarray(maps[1, layer]).mean(axis=0) + np.eye(4)) for layer in range(3)]
    rollout = attention_rollout(maps)
    np.testing.assert_allclose(rollout[1], flow[2] @ flow[1] @ flow[0], rtol=1e-5)
    np.testing.assert_allclose(rollout.sum(axis=-1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="square maps of one size"):
        attention_rollout(maps[0])


@pytest.mark.parametrize(
    ("name", "grids"),
    [
        ("vit", [(4, 6)]),
        ("cait", [(4, 6), (4, 6)]),
        ("levit", [(2, 3), (2, 3), (1, 2)]),
        ("cvt", [(4, 6)] * 3),  # which names no grids: the image's proportions do
    ],
)
def test_maps_lie_on_the_image(name, grids):
    model = tiny(name)
    variables, img = drawn(model)
    maps = attention_maps(model, variables, img)
    layers = maps if isinstance(maps, tuple) else maps.swapaxes(0, 1)
    for layer, grid in zip(layers, grids, strict=True):
        taken = over_image(model, layer, img.shape[1:3])
        assert taken.shape == (*layer.shape[:2], *grid)
        one_query = name == "vit" or layer.shape[-2] == 1
        expected = layer[..., 0, :] if one_query else layer.mean(axis=-2)
        cells = grid[0] * grid[1]
        np.testing.assert_array_equal(taken.reshape(*layer.shape[:2], -1), expected[..., -cells:])


def test_keys_that_are_no_map_of_the_image_are_named():
    with pytest.raises(ValueError, match=r"ViT: 14 keys are no map of 8 × 12 pixels"):
        over_image(tiny("vit"), jnp.ones((1, 2, 14, 14)), (8, 12))
