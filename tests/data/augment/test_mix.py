"""Mixing: images and targets in the same shares, with the batch reversed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.data.augment.mix import cutmix, mixup, mixup_or_cutmix

KEY = jax.random.key(0)
B, H, W = 6, 12, 10
TARGETS = jnp.eye(B)  # each image its own class, so that targets show the shares
MIXES = {
    "mixup": lambda images, targets, key: mixup(images, targets, key, 1.0),
    "cutmix": lambda images, targets, key: cutmix(images, targets, key, 1.0),
    "both": lambda images, targets, key: mixup_or_cutmix(images, targets, key, 1.0, 1.0),
}


def levels(channels=3, dtype="float32"):
    """Every image of one level, that no other has."""
    each = jnp.arange(10, 10 + 40 * B, 40)[:, None, None, None]
    return jnp.broadcast_to(each, (B, H, W, channels)).astype(dtype)


def many(mix, n=600):
    """`n` mixes of `levels`, and the share of its own in the targets of each first image."""
    keys = jax.random.split(KEY, n)
    images, targets = jax.jit(jax.vmap(lambda key: mix(levels(1), TARGETS, key)))(keys)
    return np.asarray(images[..., 0]), np.asarray(targets)


@pytest.mark.parametrize("name", MIXES)
def test_targets_are_shares_of_image_and_partner(name):
    images, targets = many(MIXES[name])
    share = targets[:, 0, 0]
    expected = share[:, None, None] * np.eye(B) + (1 - share)[:, None, None] * np.eye(B)[::-1]
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    # The mean level of an image is mixed in the targets' shares: of mixup, and of a pasted area.
    own = np.asarray(levels(1))[:, 0, 0, 0]
    np.testing.assert_allclose(images.mean(axis=(2, 3)), targets @ own, atol=1e-3)
    assert len(np.unique(share)) > 20


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_draws_its_share_from_beta(alpha):
    _, targets = many(lambda *args: mixup(*args, alpha), 2000)
    share = targets[:, 0, 0]
    assert abs(share.mean() - 0.5) < 0.05
    np.testing.assert_allclose(share.var(), 1 / (4 * (2 * alpha + 1)), rtol=0.1)


def test_mixup_is_the_same_everywhere_in_an_image():
    images, _ = many(MIXES["mixup"], 50)
    assert np.ptp(images, axis=(2, 3)).max() == 0


def test_mixup_of_uint8_is_rounded():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (B, 5, 4, 3)), jnp.uint8)
    out, targets = mixup(images, TARGETS, KEY, 1.0)
    share = float(targets[0, 0])
    exact = share * np.asarray(images, float) + (1 - share) * np.asarray(images[::-1], float)
    assert out.dtype == jnp.uint8
    np.testing.assert_allclose(out, exact, atol=0.501)
    assert abs(np.mean(np.asarray(out) - exact)) < 0.05  # rounded, not cut off


def test_cutmix_pastes_one_rectangle_at_one_place_in_the_batch():
    images, targets = many(MIXES["cutmix"])
    own, other = (np.asarray(each)[..., 0] for each in (levels(1), levels(1)[::-1]))
    pasted = images == other
    assert (pasted | (images == own)).all()
    assert (pasted == pasted[:, :1]).all()
    pasted = pasted[:, 0]
    rows, columns = pasted.any(axis=2), pasted.any(axis=1)
    np.testing.assert_array_equal(pasted, rows[:, :, None] & columns[:, None])
    for on in (rows, columns):
        assert (np.abs(np.diff(on.astype(int), axis=1)).sum(axis=1) <= 2).all()  # no gap
    np.testing.assert_allclose(1 - pasted.mean(axis=(1, 2)), targets[:, 0, 0], atol=1e-6)
    # Middles are even over the image: what is outside is cut off, so its rim is pasted less.
    often = pasted.mean(axis=0)
    assert often.min() > 0.05
    assert often[4:8, 3:7].min() > 1.3 * max(often[0, 0], often[0, -1], often[-1, 0])
    middles = often[:, 3:7].mean(axis=1)
    np.testing.assert_allclose(middles, middles[::-1], atol=0.12)


def test_cutmix_takes_sides_of_the_root_of_the_share():
    """With a great α λ is ½: sides of √½, even numbers of pixels, but for what is cut off."""
    images = jnp.broadcast_to(jnp.arange(2.0)[:, None, None, None], (2, 30, 20, 1))
    cut = jax.jit(jax.vmap(lambda key: cutmix(images, jnp.eye(2), key, 1e6)[0]))
    pasted = np.asarray(cut(jax.random.split(KEY, 300)))[:, 0, ..., 0] == 1
    heights, widths = pasted.any(axis=2).sum(axis=1), pasted.any(axis=1).sum(axis=1)
    assert (heights.max(), widths.max()) == (20, 14)  # 21.2 and 14.1
    assert (heights.min(), widths.min()) == (10, 7)  # the middle is the first row or column
    assert (heights < 20).any()


def test_one_of_both_is_drawn_half_of_the_time():
    images, _ = many(MIXES["both"])
    even = np.ptp(images[:, 0], axis=(1, 2)) == 0
    # Cuts of nothing look like mixup's: they are few.
    assert 0.42 < even.mean() < 0.66
    uncut = ~np.isin(images[:, 0, 0, 0], np.asarray(levels(1))[:, 0, 0, 0]) & even
    assert 0.4 < uncut.mean() < 0.6


@pytest.mark.parametrize(
    ("alphas", "alone"),
    [
        ((0.5, 0), lambda *args: mixup(*args, 0.5)),
        ((0, 0.5), lambda *args: cutmix(*args, 0.5)),
    ],
)
def test_an_alpha_of_zero_leaves_the_other(alphas, alone):
    for seed in range(4):
        key = jax.random.key(seed)
        jax.tree.map(
            np.testing.assert_array_equal,
            mixup_or_cutmix(levels(), TARGETS, key, *alphas),
            alone(levels(), TARGETS, key),
        )


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize(("channels", "dtype"), [(1, "float32"), (3, "uint8")])
def test_shape_and_dtype_are_kept_and_the_key_decides(name, channels, dtype):
    images, targets = levels(channels, dtype), TARGETS.astype(jnp.float16)
    mix = jax.jit(MIXES[name])
    one, same = (mix(images, targets, KEY) for _ in range(2))
    others = [mix(images, targets, jax.random.key(seed))[1] for seed in range(1, 6)]
    assert (one[0].shape, one[0].dtype) == (images.shape, images.dtype)
    assert (one[1].shape, one[1].dtype) == (TARGETS.shape, jnp.float32)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert len({np.asarray(each).tobytes() for each in [one[1], *others]}) > 2


@pytest.mark.parametrize("alpha", [0, -0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_alpha_is_positive(mix, alpha):
    with pytest.raises(ValueError, match=f"alpha={alpha} must be above 0"):
        mix(levels(), TARGETS, KEY, alpha)


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ((0, 0), "mixup_alpha=0 and cutmix_alpha=0: one of them must be above 0"),
        ((-1, 1), "mixup_alpha=-1 must be above 0 or 0 to leave it out"),
        ((1, -1), "cutmix_alpha=-1 must be above 0 or 0 to leave it out"),
    ],
)
def test_alphas_out_of_range(alphas, message):
    with pytest.raises(ValueError, match=message):
        mixup_or_cutmix(levels(), TARGETS, KEY, *alphas)


@pytest.mark.parametrize("mix", [mixup, cutmix])
@pytest.mark.parametrize("targets", [jnp.arange(B), jnp.eye(3)])
def test_class_numbers_are_no_targets(mix, targets):
    with pytest.raises(ValueError, match=r"must be \(6, classes\)"):
        mix(levels(), targets, KEY, 1.0)
