"""Every op is Pillow's as torchvision calls it; the policies draw ops, strengths and signs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vix_flax.data.augment.policy import (
    Op,
    apply_ops,
    darker,
    draw_ops,
    equalize_table,
    rand_augment,
    rand_magnitudes,
    trivial_augment,
    trivial_magnitudes,
)

KEY = jax.random.key(0)
H, W = 19, 24
ENHANCE = {
    Op.BRIGHTNESS: ImageEnhance.Brightness,
    Op.COLOR: ImageEnhance.Color,
    Op.CONTRAST: ImageEnhance.Contrast,
    Op.SHARPNESS: ImageEnhance.Sharpness,
}
changed = jax.jit(apply_ops, static_argnums=2)
POLICIES = {"rand": jax.jit(rand_augment), "trivial": jax.jit(trivial_augment)}


class Table(np.ndarray):
    """Hashed by identity, to be a static argument."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


TABLES = {
    "rand": rand_magnitudes(31, H, W).view(Table),
    "trivial": trivial_magnitudes().view(Table),
}


def pictures(b, channels, h=H, w=W):
    """Smooth pictures with noise, some dark, some of low contrast; the first of one colour."""
    rng = np.random.default_rng(channels)
    rows, columns = np.arange(h)[:, None, None], np.arange(w)[:, None]
    waves = np.sin(rng.uniform(0.05, 0.5, (b, 1, 1, channels)) * (rows + 2 * columns))
    middle, spread = rng.uniform(60, 190, (2, b, 1, 1, 1))
    levels = middle + spread / 2 * waves + rng.normal(0, 8, (b, h, w, channels))
    levels[0] = 77
    return np.clip(levels, 0, 255).astype(np.uint8)


def pillow(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def sheared(image, x, y):
    return image.transform(image.size, Image.AFFINE, (1, x, 0, y, 1, 0), fillcolor=0)


def shifted(image, x, y):
    return image.transform(image.size, Image.AFFINE, (1, 0, -x, 0, 1, -y), fillcolor=0)


def by_torchvision(image, op, m):
    """What torchvision's `_apply_op` does to a Pillow image."""
    if op in ENHANCE:
        return ENHANCE[op](image).enhance(1 + m)
    return {
        Op.IDENTITY: lambda: image,
        Op.SHEAR_X: lambda: sheared(image, m, 0),
        Op.SHEAR_Y: lambda: sheared(image, 0, m),
        Op.TRANSLATE_X: lambda: shifted(image, int(m), 0),
        Op.TRANSLATE_Y: lambda: shifted(image, 0, int(m)),
        Op.ROTATE: lambda: image.rotate(m, fillcolor=0),
        Op.POSTERIZE: lambda: ImageOps.posterize(image, int(m)),
        Op.SOLARIZE: lambda: ImageOps.solarize(image, m),
        Op.AUTO_CONTRAST: lambda: ImageOps.autocontrast(image),
        Op.EQUALIZE: lambda: ImageOps.equalize(image),
    }[op]()


def ranges(policy, op, h=H, w=W):
    """torchvision's strengths, written out once more."""
    rand = policy == "rand"
    far = {Op.TRANSLATE_X: 150 / 331 * w, Op.TRANSLATE_Y: 150 / 331 * h}
    steps = np.arange(31)
    if op in (Op.SHEAR_X, Op.SHEAR_Y):
        return steps * ((0.3 if rand else 0.99) / 30)
    if op in far:
        return np.floor(steps * (far[op] if rand else 32) / 30)
    if op == Op.ROTATE:
        return steps * (1.0 if rand else 4.5)
    if op in ENHANCE:
        return steps * ((0.9 if rand else 0.99) / 30)
    if op == Op.POSTERIZE:
        return 8 - np.round(steps / (7.5 if rand else 5))
    return 255 - 8.5 * steps if op == Op.SOLARIZE else 0.0 * steps


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["rand", "trivial"])
@pytest.mark.parametrize("op", Op, ids=lambda op: op.name)
def test_ops_are_pillows_at_every_strength_and_sign(op, policy, channels):
    images = pictures(62, channels)
    bins, signs = np.divmod(np.arange(62), 2)
    signed = op in ENHANCE or Op.SHEAR_X <= op <= Op.ROTATE
    strengths = ranges(policy, op)[bins] * np.where(signed & (signs == 1), -1, 1)
    expected = np.stack(
        [
            np.asarray(by_torchvision(pillow(image), op, m)).reshape(image.shape)
            for image, m in zip(images, strengths, strict=True)
        ]
    )
    choice = (jnp.full(62, int(op)), jnp.asarray(bins), jnp.asarray(signs))
    out = changed(jnp.asarray(images), choice, TABLES[policy])
    assert out.dtype == jnp.uint8
    difference = np.asarray(out).astype(int) - expected
    if op in ENHANCE or op == Op.AUTO_CONTRAST:
        # Floats: fused multiplications here, Pillow's own rounding of whole numbers there.
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 0.02
    else:
        assert not difference.any()


def test_a_quarter_turn_is_exact():
    square = jnp.asarray(pictures(2, 3, 16, 16))
    bins = ranges("trivial", Op.ROTATE).tolist().index(90.0)
    choice = (jnp.full(2, int(Op.ROTATE)), jnp.full(2, bins), jnp.array([0, 1]))
    out = changed(square, choice, TABLES["trivial"])
    np.testing.assert_array_equal(out[0], np.rot90(square[0]))
    np.testing.assert_array_equal(out[1], np.rot90(square[1], -1))


def test_ops_of_one_batch_do_not_mix():
    """Each image gets what it would get in a batch of its own op alone."""
    images = jnp.asarray(np.repeat(pictures(2, 3)[1:], 14, axis=0))
    ops, bins, signs = jnp.arange(14), jnp.full(14, 20), jnp.zeros(14, int)
    together = changed(images, (ops, bins, signs), TABLES["rand"])
    for op in Op:
        alone = changed(images, (jnp.full(14, int(op)), bins, signs), TABLES["rand"])
        np.testing.assert_array_equal(together[op], alone[op], op.name)
    assert len({image.tobytes() for image in np.asarray(together)}) == 14


@pytest.mark.parametrize(("h", "w"), [(1, 1), (2, 5), (64, 48)])
def test_images_of_any_size(h, w):
    """Steps of no levels at all, and of more than one; images without an inside."""
    images = pictures(14, 3, h, w)
    choice = (jnp.arange(14), jnp.full(14, 20), jnp.zeros(14, int))
    out = np.asarray(apply_ops(jnp.asarray(images), choice, rand_magnitudes(31, h, w)))
    for op in Op:
        expected = by_torchvision(pillow(images[op]), op, ranges("rand", op, h, w)[20])
        difference = np.abs(out[op].astype(int) - np.asarray(expected)).max()
        assert difference <= (op in ENHANCE or op == Op.AUTO_CONTRAST), op.name


def test_darker_counts_pixels_and_equalize_spreads_them():
    images = pictures(3, 3)
    below = np.asarray(darker(jnp.asarray(images)))
    expected = (images.reshape(3, -1, 3, 1) < np.arange(256)).sum(axis=1)
    np.testing.assert_array_equal(below, expected)
    table = np.asarray(equalize_table(jnp.asarray(below), H * W))
    np.testing.assert_array_equal(table[0], np.broadcast_to(np.arange(256), (3, 256)))
    assert (np.diff(table, axis=-1) >= 0).all()


def test_draws_are_even():
    op, bins, sign = (np.asarray(draw) for draw in draw_ops(KEY, 14_000, TABLES["trivial"]))
    for drawn, n in ((op, 14), (bins, 31), (sign, 2)):
        counts = np.bincount(drawn, minlength=n)
        assert len(counts) == n
        np.testing.assert_allclose(counts, 14_000 / n, atol=5 * math.sqrt(14_000 / n))
    for one, other in ((op, bins), (op, sign), (bins, sign)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_rand_augment_takes_num_ops_of_one_magnitude():
    image = pictures(2, 3)[1:]
    images = jnp.asarray(np.repeat(image, 600, axis=0))
    op, sign = jnp.divmod(jnp.arange(28), 2)
    choices = (op, jnp.full(28, 20), sign)
    single = {each.tobytes() for each in np.asarray(changed(images[:28], choices, TABLES["rand"]))}
    assert len(single) == 9 * 2 + 5  # nine ops have a sign
    once = np.asarray(rand_augment(images, KEY, num_ops=1, magnitude=20))
    assert {each.tobytes() for each in once} == single  # all of them, and nothing else
    twice = {each.tobytes() for each in np.asarray(rand_augment(images, KEY, 2, 20))}
    assert len(twice) > 150  # of 23², some alike
    same = [(each == image[0]).all() for each in once]
    assert 0.04 < np.mean(same) < 0.11  # Identity: one of 14


def test_the_share_of_images_left_alone():
    """At strength 0 all but AutoContrast and Equalize are the identity, as no pixel is 255."""
    image = pictures(2, 3)[1:]
    images = jnp.asarray(np.repeat(image, 400, axis=0))
    for policy, share in (
        (lambda: rand_augment(images, KEY, num_ops=1, magnitude=0), 12 / 14),
        (lambda: rand_augment(images, KEY, 1, 30), 1 / 14),
        (lambda: trivial_augment(images, KEY), 1 / 14 + 11 / 14 / 31),
    ):
        same = (np.asarray(policy()) == image).all(axis=(1, 2, 3)).mean()
        assert abs(same - share) < 0.08


def test_trivial_augment_draws_every_strength():
    """Of a shift to the right the black columns count the pixels: 0 … 32, all alike."""
    images = jnp.full((6000, 1, 40, 1), 128, jnp.uint8)
    out = np.asarray(POLICIES["trivial"](images, KEY)).reshape(6000, 40)
    right = (out[:, 0] == 0) & (out[:, -1] == 128)
    widths = (out[right] == 0).sum(axis=1)
    assert set(widths) == set(range(1, 33)) - {15, 31}  # whole parts of 32 · i / 30


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(("channels", "dtype"), [(1, "float32"), (3, "uint8")])
def test_shape_and_dtype_are_kept_and_the_key_decides(name, channels, dtype):
    images = jnp.asarray(pictures(40, channels), dtype)
    policy = POLICIES[name]
    one, same, other = (policy(images, jax.random.key(seed)) for seed in (0, 0, 1))
    assert (one.shape, one.dtype) == (images.shape, images.dtype)
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any(axis=(1, 2, 3)).mean() > 0.6


@pytest.mark.parametrize("name", POLICIES)
def test_floats_are_rounded_to_levels(name):
    levels = pictures(40, 3)
    noise = np.random.default_rng(0).uniform(-0.49, 0.49, levels.shape)
    out = POLICIES[name](jnp.asarray(levels + noise, jnp.float32), KEY)
    expected = POLICIES[name](jnp.asarray(levels), KEY)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, expected.astype(jnp.float32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(num_ops=0), "num_ops=0 must be at least 1"),
        (dict(magnitude=-1), "magnitude=-1 must be in 0 … 30"),
        (dict(magnitude=31), "magnitude=31 must be in 0 … 30"),
        (dict(magnitude=9.5), "magnitude=9.5 must be in 0 … 30"),
        (dict(magnitude=10, num_magnitude_bins=10), "magnitude=10 must be in 0 … 9"),
        (dict(magnitude=0, num_magnitude_bins=1), "num_magnitude_bins=1 must be at least 2"),
    ],
)
def test_fields_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        rand_augment(jnp.zeros((1, 4, 4, 3), jnp.uint8), KEY, **fields)


@pytest.mark.parametrize("policy", [rand_augment, trivial_augment])
def test_two_channels_are_neither_grey_nor_colour(policy):
    with pytest.raises(ValueError, match="2 channels must have 1 or 3"):
        policy(jnp.zeros((1, 4, 4, 2), jnp.uint8), KEY)
