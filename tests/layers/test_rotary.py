import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import check_rotary_width, rotary_angles, rotate


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_raster_angles_are_position_times_a_falling_frequency():
    angles = rotary_angles("raster", 6, 8)
    by_hand = [[n * 10000 ** (-2 * i / 8) for i in range(4)] for n in range(6)]
    np.testing.assert_allclose(angles, by_hand, rtol=1e-12)


def test_pairs_of_neighbouring_features_turn():
    x, angles = normal(1, 3, 1, 4), np.asarray([[0.3, 1.0], [2.0, -0.5], [np.pi / 2, 0.0]])
    turned = np.asarray(rotate(x, angles))[0, :, 0]
    for token, row in enumerate(angles):
        for i, angle in enumerate(row):
            pair = complex(*x[0, token, 0, 2 * i : 2 * i + 2]) * np.exp(1j * angle)
            np.testing.assert_allclose(
                turned[token, 2 * i : 2 * i + 2], [pair.real, pair.imag], rtol=0, atol=1e-6
            )


def products(layout, tokens, grid=None, q=None, k=None):
    """q · k of one query and one key, wherever each of them stands: (tokens, tokens)."""
    q = jnp.broadcast_to(normal(8), (1, tokens, 1, 8))
    k = jnp.broadcast_to(normal(8, seed=1), (1, tokens, 1, 8))
    angles = rotary_angles(layout, tokens, 8, grid)
    return np.einsum("nd,md->nm", rotate(q, angles)[0, :, 0], rotate(k, angles)[0, :, 0])


def test_raster_products_depend_on_the_difference_of_positions_alone():
    scores = products("raster", 12)
    np.testing.assert_allclose(scores[3:, 3:], scores[:-3, :-3], rtol=0, atol=1e-5)
    assert np.abs(scores[0] - scores[0, 0])[1:].min() > 1e-4


def test_axial_products_depend_on_the_shift_of_rows_and_columns_alone():
    scores = products("axial", 20, grid=(4, 5)).reshape(4, 5, 4, 5)
    shifted = scores[1:, 2:, 1:, 2:]
    np.testing.assert_allclose(shifted, scores[:-1, :-2, :-1, :-2], rtol=0, atol=1e-5)
    assert np.abs(scores[0, 1] - scores[1, 0]).max() > 0.01


def test_axial_angles_are_half_rows_and_half_columns():
    angles = rotary_angles("axial", 6, 8, grid=(2, 3)).reshape(2, 3, 4)
    for row in range(2):
        for column in range(3):
            by_hand = [row, row / 100, column, column / 100]  # 10000^(-2i/4)
            np.testing.assert_allclose(angles[row, column], by_hand, rtol=1e-12)


def test_axial_class_tokens_stand_in_front_and_are_not_turned():
    angles = rotary_angles("axial", 8, 8, grid=(2, 3))
    np.testing.assert_array_equal(angles[:2], 0)
    np.testing.assert_array_equal(angles[2:], rotary_angles("axial", 6, 8, grid=(2, 3)))
    x = normal(2, 8, 2, 8)
    np.testing.assert_array_equal(rotate(x, angles)[:, :2], x[:, :2])


def test_turning_keeps_lengths_and_dtype():
    x = normal(2, 5, 2, 8)
    turned = rotate(x, rotary_angles("raster", 5, 8))
    lengths = np.linalg.norm(x, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), lengths, rtol=1e-5)
    half = rotate(x.astype(jnp.bfloat16), rotary_angles("raster", 5, 8))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), turned, rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("layout", "width", "factor"), [("raster", 7, 2), ("axial", 7, 4), ("axial", 6, 4)]
)
def test_features_that_cannot_be_paired(layout, width, factor):
    message = f"dim_head={width} .* {layout} rotary positions: it must be a multiple of {factor}"
    with pytest.raises(ValueError, match=message):
        check_rotary_width(layout, width)
    with pytest.raises(ValueError, match=message):
        rotary_angles(layout, 6, width, grid=(2, 3))


@pytest.mark.parametrize("grid", [None, (3, 3)])
def test_axial_positions_need_a_grid_that_the_tokens_fill(grid):
    with pytest.raises(ValueError, match="axial rotary positions need the map's grid"):
        rotary_angles("axial", 8, 8, grid)
