"""Trained positions carried over to another image size."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from tiny_models import images, tiny

import vix_flax as vix
from vix_flax import ViX, resize_positions
from vix_flax.attention import Linformer

# A preset of each family with positions: image sizes, and its maps at each.
FAMILIES = {
    "vit": ((8, 12), (16, 8), ((4, 6),), ((8, 4),)),
    "cct": ((16, 24), (32, 16), ((4, 6),), ((8, 4),)),
    "cait_cifar": ((8, 12), (12, 20), ((4, 6),), ((6, 10),)),
    "t2t_vit_cifar": ((8, 12), (20, 16), ((4, 6), (2, 4)), ((10, 8), (8, 6))),
    "pit_cifar": ((8, 12), (16, 8), ((3, 5), (2, 3)), ((7, 3), (4, 2))),
    "cross_vit_cifar": ((8, 12), (16, 8), ((4, 6), (2, 3)), ((8, 4), (4, 2))),
    "levit_cifar": ((48, 80), (112, 16), ((3, 5), (2, 3)), ((7, 1), (4, 1))),
}
every_family = pytest.mark.parametrize("name", FAMILIES)
NEEDED = {
    "cct": dict(n_conv_layers=1, stride=2, pooling_stride=2),
    "levit_cifar": dict(heads=2),
}


def family(name, image_size, **fields):
    preset = "dual_norm_vit_cifar" if name == "vit" else name
    return tiny(preset, image_size=image_size, **NEEDED.get(name, {}), **fields)


def vit(image_size, **fields):
    return family("vit", image_size, **fields)


@cache
def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), images(model))


def drawn(model):
    """Variables of the right shapes, as numpy arrays."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes(model))


def flat(variables):
    return traverse_util.flatten_dict(variables, sep="/")


def positional(variables):
    """Path → leaf of what belongs to a map."""
    names = ("pos_embedding", "table", "proj_k", "proj_v")
    return {k: v for k, v in flat(variables).items() if k.split("/")[-1] in names}


def positions(model, make):
    """Positional variables alone, as `make(path, leaf)` has them."""
    leaves = positional(drawn(model)).items()
    made = {path: np.asarray(make(path, leaf), "f4") for path, leaf in leaves}
    return traverse_util.unflatten_dict(made, sep="/")


def resized(variables, old, new):
    """Path → leaf; compiled at once."""
    out = jax.jit(lambda variables: resize_positions(variables, old, new))(variables)
    return {path: np.asarray(leaf) for path, leaf in flat(out).items()}


def resized_map(values, before, after):
    """What becomes of `values (rows, columns)` in every feature of a ViT's positions."""
    old, new = vit(before), vit(after)
    tokens = np.concatenate([[7.0], np.ravel(values)])
    variables = positions(old, lambda _, leaf: tokens[None, :, None] + 0 * leaf)
    (out,) = resized(variables, old, new).values()
    np.testing.assert_array_equal(out, out[..., :1] + 0 * out)
    np.testing.assert_array_equal(out[0, 0], 7)  # of the class token
    return out[0, 1:, 0].reshape(new.grid)


@pytest.mark.parametrize("name", ["vit", "levit_cifar"])
def test_the_same_size_gives_the_same_arrays(name):
    size = FAMILIES[name][0]
    variables = drawn(family(name, size))
    out = resize_positions(variables, family(name, size), family(name, size))
    assert flat(out).keys() == flat(variables).keys()
    assert all(leaf is flat(variables)[path] for path, leaf in flat(out).items())


def test_resized_variables_run_in_the_other_model():
    old, new = vit((8, 12)), vit((16, 8))
    out = jax.eval_shape(lambda variables: resize_positions(variables, old, new), shapes(old))
    assert jax.eval_shape(new.apply, out, images(new)).shape == (3, 5)
    assert out == shapes(new)


GRID_OF = {  # which of a model's maps a leaf belongs to
    "params/pos_embedding": 0,
    "params/embeddings_0/pos_embedding": 0,
    "params/embeddings_1/pos_embedding": 1,
    "params/blocks_0/mixer/distance_bias/table": 0,
    "params/blocks_1/mixer/distance_bias/table": 0,
    "params/blocks_2/mixer/distance_bias/table": 1,
}


@every_family
def test_a_constant_stays_constant_and_what_differs_by_row_alone_still_does(name):
    """Were a leaf cut into the wrong rows, columns would differ, too."""
    before, after, old_grids, new_grids = FAMILIES[name]
    old, new = family(name, before), family(name, after)
    assert (old.grids, new.grids) == (old_grids, new_grids)
    which = lambda path: -1 if name == "t2t_vit_cifar" else GRID_OF[path]

    def make(path, leaf):
        rows, columns = old.grids[which(path)]
        first = leaf.size // leaf.shape[-1] - rows * columns
        by_row = np.repeat(np.arange(1.0, 1 + rows), columns)
        ramp = np.concatenate([np.full(first, 9.0), by_row])
        features = [3 + 0 * ramp, *[ramp] * (leaf.shape[-1] - 1)]
        return np.stack(features, axis=-1).reshape(leaf.shape)

    other = flat(shapes(new))
    changed = {path for path, leaf in flat(shapes(old)).items() if leaf != other[path]}
    out = resized(positions(old, make), old, new)
    assert out.keys() == changed
    for path, leaf in out.items():
        assert leaf.shape == other[path].shape
        rows, columns = new.grids[which(path)]
        tokens = leaf.reshape(-1, leaf.shape[-1])
        np.testing.assert_allclose(tokens[:, 0], 3, rtol=1e-5)
        first = len(tokens) - rows * columns
        np.testing.assert_array_equal(tokens[:first, 1:], 9)
        values = tokens[first:, -1].reshape(rows, columns)
        np.testing.assert_allclose(values, values[:, :1] + 0 * values, rtol=0, atol=1e-5)
        assert (np.diff(values[:, 0]) > 0).all(), path


def test_a_ramp_stays_a_ramp_inside():
    before, after = (16, 16), (32, 24)
    (rows, columns), (new_rows, new_columns) = (vit(size).grid for size in (before, after))
    i, j = np.indices((rows, columns))
    out = resized_map(2.0 * i - 3 * j, before, after)
    i, j = np.indices((new_rows, new_columns))
    i, j = (i + 0.5) * rows / new_rows - 0.5, (j + 0.5) * columns / new_columns - 0.5
    inside = (i >= 1) & (i <= rows - 2) & (j >= 1) & (j <= columns - 2)
    assert inside.sum() > 12
    np.testing.assert_allclose(out[inside], (2 * i - 3 * j)[inside], rtol=0, atol=1e-4)
    assert (np.diff(out, axis=0) > 0).all()
    assert (np.diff(out, axis=1) < 0).all()


def test_there_and_back_again():
    after = (36, 16)
    i, j = np.indices((8, 6))
    smooth = np.sin(i / 3) + np.cos(j / 2)
    there = resized_map(smooth, (16, 12), after)
    assert there.shape == (after[0] // 2, after[1] // 2)
    back = resized_map(there, after, (16, 12))
    np.testing.assert_allclose(back, smooth, rtol=0, atol=0.05)


def test_a_grid_of_one_row():
    wide = resized_map(np.arange(6.0), (2, 12), (8, 12))
    np.testing.assert_allclose(wide, np.repeat([np.arange(6.0)], 4, axis=0), atol=1e-5)
    ramp = np.indices((4, 6))[1]
    np.testing.assert_allclose(resized_map(ramp, (8, 12), (2, 12)), ramp[:1], rtol=0, atol=1e-5)


def test_a_map_turned_on_its_side_has_as_many_positions_and_is_resampled():
    ramp = np.indices((4, 6))[0]
    out = resized_map(ramp, (8, 12), (12, 8))
    np.testing.assert_allclose(out, out[:, :1] + 0 * out, rtol=0, atol=1e-5)
    assert (np.diff(out[:, 0]) > 0).all()


def test_branches_whose_maps_have_equally_many_positions_are_told_apart():
    patches = dict(sm_patch_size=(2, 4), lg_patch_size=(4, 2))
    old, new = (tiny("cross_vit_cifar", image_size=(side, side), **patches) for side in (8, 16))
    assert (old.grids, new.grids) == (((4, 2), (2, 4)), ((8, 4), (4, 8)))
    by_row = np.array([9.0, 1, 1, 1, 1, 2, 2, 2, 2])[:, None]
    out = resized(positions(old, lambda _, leaf: by_row + 0 * leaf), old, new)
    lg = out["params/embeddings_1/pos_embedding"][0, 1:, 0].reshape(4, 8)
    np.testing.assert_allclose(lg, lg[:, :1] + 0 * lg, rtol=0, atol=1e-5)


def test_positions_keep_their_type():
    old, new = vit((8, 12)), vit((16, 8))
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), drawn(old))
    out = jax.eval_shape(lambda variables: resize_positions(variables, old, new), variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype("bfloat16")}


def levit(grid):
    """One stage on a map of this size."""
    return tiny("levit_cifar", image_size=[16 * side for side in grid], stages=1, dim=16)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((3, 5), (7, 6)),
        ((7, 6), (3, 5)),
        ((1, 4), (3, 7)),
        ((5, 3), (1, 4)),
        ((1, 1), (2, 3)),
    ],
)
def test_offset_zero_stays_offset_zero_and_the_largest_the_largest(before, after):
    old, new = levit(before), levit(after)
    variables = positions(old, lambda _, leaf: leaf)
    (table,) = positional(variables).values()
    (out,) = resized(variables, old, new).values()
    table, out = table.reshape(*before, -1), out.reshape(*after, -1)
    ends = lambda side: [0, -1] if side > 1 else [0]
    for i in ends(after[0]):
        for j in ends(after[1]):
            np.testing.assert_allclose(out[i, j], table[i, j], rtol=0, atol=2e-5)


def test_offsets_between_are_in_proportion():
    columns = np.arange(5.0)
    variables = positions(levit((1, 5)), lambda _, leaf: columns[:, None] + 0 * leaf)
    (out,) = resized(variables, levit((1, 5)), levit((1, 9))).values()
    np.testing.assert_allclose(out[2:-2, 0], np.arange(9)[2:-2] / 2, rtol=0, atol=1e-5)
    np.testing.assert_allclose(out[::2, 0], columns, rtol=0, atol=1e-5)


def test_linformers_sums_over_the_tokens_are_kept():
    after = (4, 18)  # fewer rows, more columns
    fields = dict(attention=Linformer, attention_options={"k": 3, "share_kv": False})
    old, new = vit((8, 12), **fields), vit(after, **fields)
    i, j = np.indices(old.grid)
    ramp = np.concatenate([[5.0], (1 + i - j / 2).ravel()])

    def make(path, leaf):
        return ramp[:, None] * [1, 2, -3] if "proj" in path else leaf

    out = resized(positions(old, make), old, new)
    paths = [f"params/blocks_0/mixer/core/proj_{name}" for name in "kv"]
    assert out.keys() == {"params/pos_embedding", *paths}
    for path in paths:
        np.testing.assert_allclose(out[path][0], [5, 10, -15], rtol=1e-6)  # of the class token
        total = ramp[1:].sum() * np.array([1, 2, -3])
        np.testing.assert_allclose(out[path][1:].sum(axis=0), total, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("t2t_vit_cifar", (20, 16)),
        ("levit_cifar", (112, 16)),
        ("pit_cifar", (40, 4)),  # from maps of 15 and 6 positions to such of 19 and 10
    ],
)
def test_linformers_of_every_map_are_resized(name, after):
    before = FAMILIES[name][0]
    linformer = dict(attention=Linformer, attention_options={"k": 3})
    old, new = (family(name, size, **linformer) for size in (before, after))
    out = jax.eval_shape(lambda variables: resize_positions(variables, old, new), shapes(old))
    assert out == shapes(new)


def test_what_belongs_to_no_map_is_passed_on_as_it_is():
    old, new = (vit(size, attention="performer") for size in ((8, 12), (16, 8)))
    variables = drawn(old)
    out = resize_positions(variables, old, new)
    assert "features/blocks_0/mixer/core/projection" in flat(out)
    moved = {path for path, leaf in flat(out).items() if leaf is not flat(variables)[path]}
    assert moved == {"params/pos_embedding"}
    only = {"params": variables["params"]}
    assert resize_positions(only, old, new).keys() == {"params"}


def test_variables_of_another_model_are_refused():
    old, new = vit((8, 12)), vit((16, 8))
    message = (
        r"params/pos_embedding \(1, 33, 16\) is no variable of model_from, which has \(1, 25, 16\)"
    )
    with pytest.raises(ValueError, match=message):
        resize_positions(drawn(new), old, new)
    with pytest.raises(ValueError, match="is no variable of model_from, which has nothing of that"):
        resize_positions(drawn(vit((8, 12), depth=2)), old, new)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(depth=2), "the models differ in more than the image size: depth is 1 and 2"),
        (dict(position="none"), "position is 'learned' and 'none'"),
        (dict(num_classes=7), "num_classes is 5 and 7"),
        (dict(dim=12), "dim is .* and 12"),
        (dict(heads=4, dim_head=4), "heads is .* and 4|dim_head is 8 and 4"),
        (dict(patch_size=4), r"embedding/.* belongs to no map of tokens"),
    ],
)
def test_models_that_differ_in_more_are_refused(fields, message):
    old, new = vit((8, 12)), vit((16, 8), **fields)
    with pytest.raises(ValueError, match=message):
        resize_positions(drawn(old), old, new)


def test_models_that_differ_only_in_the_width_of_positions_are_refused():
    class Bare(ViX, kw_only=True):
        def setup(self):
            shape = (1, self.grid[0] * self.grid[1], self.dim)
            self.pos_embedding = self.param("pos_embedding", jax.nn.initializers.zeros, shape)

        def __call__(self, img):
            return self.pos_embedding

    fields = dict(patch_size=2, num_classes=3, depth=1, heads=1, mlp_dim=8)
    old = Bare(image_size=8, dim=8, **fields)
    variables = {"params": {"pos_embedding": np.ones((1, 16, 8), "f4")}}
    with pytest.raises(ValueError, match="dim is 8 and 6"):
        resize_positions(variables, old, Bare(image_size=12, dim=6, **fields))
    out = resize_positions(variables, old, Bare(image_size=12, dim=8, **fields))
    np.testing.assert_allclose(out["params"]["pos_embedding"], np.ones((1, 36, 8)), rtol=1e-5)

    class Mapless(Bare):
        grids = ()

    message = "params/pos_embedding is .* belongs to no map of tokens"
    with pytest.raises(ValueError, match=message):
        resize_positions(
            variables,
            Mapless(image_size=8, dim=8, **fields),
            Mapless(image_size=12, dim=8, **fields),
        )


def test_an_mlp_mixer_cannot_be_resized():
    old, new = (tiny("mlp_mixer", image_size=size) for size in ((8, 12), (16, 8)))
    message = r"mixer/.* cannot be resampled: it belongs to no map of tokens"
    with pytest.raises(ValueError, match=message):
        resize_positions(drawn(old), old, new)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_of_another_size_is_told_of_resizing(name):
    before, after, *_ = FAMILIES[name]
    message = rf"image_size=\({after[0]}, {after[1]}\).* vix_flax\.resize_positions"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(family(name, before).init, jax.random.key(0), jnp.zeros((1, *after, 2)))


def test_linformers_length_is_told_of_resizing():
    model = tiny("cvt_cifar", attention="linformer", k=3)  # takes any image
    variables = drawn(model)
    with pytest.raises(
        ValueError, match=r"Linformer was .* 24 tokens .* vix_flax\.resize_positions"
    ):
        jax.eval_shape(model.apply, variables, jnp.zeros((1, 16, 12, 2)))
    assert vix.resize_positions is resize_positions
