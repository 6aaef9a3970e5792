"""Erasing: one rectangle of noise in some images, drawn for each, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.data.augment.erase import random_erase

KEY = jax.random.key(0)
H, W = 40, 30
IMAGES = jnp.full((1500, H, W, 1), -1.0)  # a level that no noise has
erase = jax.jit(random_erase, static_argnames=("rate", "area", "ratio"))


def boxes(changed):
    """Rows from, rows to, columns from, columns to of what changed in `(b, h, w)` bool."""
    rows, columns = changed.any(axis=2), changed.any(axis=1)
    ends = [(on.argmax(axis=1), on.shape[1] - on[:, ::-1].argmax(axis=1)) for on in (rows, columns)]
    return np.concatenate(ends)


@pytest.fixture(scope="module")
def always():
    """Where images were erased at rate 1."""
    return np.asarray(erase(IMAGES, KEY, rate=1.0))[..., 0] >= 0


def test_what_changes_is_one_full_rectangle(always):
    top, bottom, left, right = boxes(always)
    np.testing.assert_array_equal(always.sum(axis=(1, 2)), (bottom - top) * (right - left))
    assert always.any(axis=(1, 2)).mean() > 0.995


def test_area_and_ratio_are_drawn_from_their_ranges(always):
    top, bottom, left, right = boxes(always)
    heights, widths = bottom - top, right - left
    shares = heights * widths / (H * W)
    assert 0.014 < shares.min() < 0.04  # sides are rounded
    assert 0.28 < shares.max() < 0.37
    # Even in the area, but for great rectangles of extreme ratios, that do not fit.
    assert 0.14 < np.median(shares) < 0.19
    large = np.minimum(heights, widths) >= 5
    ratios = np.log(heights / widths)[large]
    assert np.log(0.25) < ratios.min() < np.log(0.4)
    assert np.log(2.5) < ratios.max() < np.log(4)
    assert -0.1 < np.median(ratios) < 0.25  # narrower than high, so high ones fit more often


def test_rectangles_lie_anywhere(always):
    top, bottom, left, right = boxes(always)
    for start, end, n in ((top, bottom, H), (left, right, W)):
        assert start.min() == 0
        assert end.max() == n
        place = start[end - start < n] / (n - (end - start))[end - start < n]
        assert 0.45 < place.mean() < 0.55
        assert 0.25 < place.std() < 0.35  # evenly: 0.29
    assert always.sum(axis=0).min() > 0  # every pixel is erased at times


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_rate_is_a_share_of_the_images(rate):
    out = np.asarray(erase(IMAGES, KEY, rate=rate))
    assert abs((out >= 0).any(axis=(1, 2, 3)).mean() - rate) < 0.05


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_every_level_alike_and_its_own_in_each_pixel_and_channel(channels):
    images = jnp.full((200, 32, 32, channels), 9, jnp.uint8)
    out = np.asarray(erase(images, KEY, rate=1.0, area=(0.3, 0.3), ratio=(1.0, 1.0)))
    assert out.dtype == np.uint8
    top, bottom, left, right = boxes((out != 9).any(axis=-1))
    assert ((bottom - top == 18) & (right - left == 18)).mean() > 0.8  # its rim is 9 by chance
    noise = np.concatenate(
        [
            each[t + 1 : t + 16, l + 1 : l + 16].reshape(-1, channels)
            for each, t, l in zip(out, top, left, strict=True)
        ]
    )
    counts = np.bincount(noise.ravel(), minlength=256)
    np.testing.assert_allclose(counts, counts.mean(), atol=6 * counts.mean() ** 0.5)
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.03
    if channels == 3:
        assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.03
    squares = {each.tobytes() for each in noise.reshape(200, -1)}
    assert len(squares) == 200


def test_what_never_fits_stays():
    images = jnp.ones((50, 8, 8, 1))
    np.testing.assert_array_equal(random_erase(images, KEY, 1.0, (1.0, 1.0), (1.0, 1.0)), images)
    np.testing.assert_array_equal(random_erase(images, KEY, 1.0, (0.3, 0.3), (9.0, 9.9)), images)
    for shape in ((50, 8, 16, 1), (50, 16, 8, 1)):  # 8 × 8: a side as long as the image's
        images = jnp.ones(shape)
        np.testing.assert_array_equal(erase(images, KEY, 1.0, (0.5, 0.5), (1.0, 1.0)), images)


def test_the_first_of_ten_draws_that_fits_is_taken():
    """Of squares evenly from 0 to all of the area those whose side rounds to 5 and more do not fit
    in 5 × 5: a fifth is drawn again."""
    out = np.asarray(erase(jnp.full((2000, 5, 5, 1), -1.0), KEY, 1.0, (1e-6, 1.0), (1.0, 1.0)))
    areas = (out >= 0).sum(axis=(1, 2, 3))
    sides, counts = np.unique(np.sqrt(areas), return_counts=True)
    np.testing.assert_array_equal(sides, [0, 1, 2, 3, 4])
    bounds = np.array([0, 0.5, 1.5, 2.5, 3.5, 4.5])
    np.testing.assert_allclose(counts / 2000, np.diff(bounds**2) / 4.5**2, atol=0.04)


@pytest.mark.parametrize(("channels", "dtype"), [(1, "float32"), (3, "uint8")])
def test_shape_and_dtype_are_kept_and_the_key_decides(channels, dtype):
    shape = (60, 7, 9, channels)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape), dtype)
    one, same, other = (erase(images, jax.random.key(seed), rate=1.0) for seed in (0, 0, 1))
    assert (one.shape, one.dtype) == (images.shape, images.dtype)
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any(axis=(1, 2, 3)).mean() > 0.9
    assert one.min() >= 0
    assert one.max() <= 255


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(rate=-0.1), r"rate=-0.1 must be in 0 … 1"),
        (dict(rate=1.1), r"rate=1.1 must be in 0 … 1"),
        (dict(area=(0.0, 0.3)), r"area=\(0.0, 0.3\) must be"),
        (dict(area=(0.4, 0.3)), r"area=\(0.4, 0.3\) must be"),
        (dict(area=(0.1, 1.2)), r"area=\(0.1, 1.2\) must be"),
        (dict(ratio=(0.0, 3.3)), r"ratio=\(0.0, 3.3\) must be"),
        (dict(ratio=(3.3, 0.3)), r"ratio=\(3.3, 0.3\) must be"),
    ],
)
def test_fields_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        random_erase(jnp.zeros((1, 4, 4, 3)), KEY, **fields)
