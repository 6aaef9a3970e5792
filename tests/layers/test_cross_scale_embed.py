"""Convolutions of several sizes around the same points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.layers import CrossScaleEmbed


def widths(dim, kernel_sizes, stride=2):
    """Kernel side → channels, in the order of the output."""
    module = CrossScaleEmbed(dim, kernel_sizes, stride)
    out, variables = jax.eval_shape(
        module.init_with_output, jax.random.key(0), jnp.zeros((1, 8, 12, 3))
    )
    assert out.shape == (1, 8 // stride, 12 // stride, dim)
    kernels = [variables["params"][f"conv{i}"]["kernel"].shape for i in range(len(kernel_sizes))]
    assert all(shape[0] == shape[1] and shape[2] == 3 for shape in kernels)
    return [(shape[0], shape[3]) for shape in kernels]


@pytest.mark.parametrize(
    ("dim", "kernel_sizes", "expected"),
    [
        (16, (2, 4, 6, 8), [(2, 8), (4, 4), (6, 2), (8, 2)]),
        (10, (8, 2, 4), [(2, 5), (4, 2), (8, 3)]),
        (7, (2, 4), [(2, 3), (4, 4)]),
        (5, (2,), [(2, 5)]),
        (4, (6, 2, 4), [(2, 2), (4, 1), (6, 1)]),
    ],
)
def test_small_kernels_get_half_of_what_is_left_and_the_largest_the_rest(
    dim, kernel_sizes, expected
):
    assert widths(dim, kernel_sizes) == expected


def test_all_kernels_are_around_the_same_points():
    """A 2 × 2 kernel sees the middle of what a 4 × 4 kernel sees."""
    module = CrossScaleEmbed(2, (4, 2), 2)
    img = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 8, 1)), jnp.float32)
    middle = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 1, 1)), jnp.float32)
    zero = jnp.zeros(1)
    params = {
        "conv0": {"kernel": middle, "bias": zero},
        "conv1": {"kernel": jnp.pad(middle, ((1, 1), (1, 1), (0, 0), (0, 0))), "bias": zero + 3},
    }
    out = module.apply({"params": params}, img)
    np.testing.assert_allclose(out[..., 1], out[..., 0] + 3, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel_sizes", "stride"), [((4, 7), 4), ((2, 4), 4), ((), 2), ((1,), 2), ((3, 4), 3)]
)
def test_kernels_must_be_the_stride_or_larger_by_an_even_number(kernel_sizes, stride):
    with pytest.raises(ValueError, match=r"cross_embed_kernel_sizes=\(.* the stride or larger"):
        CrossScaleEmbed(16, kernel_sizes, stride).check()


def test_every_scale_needs_a_channel():
    with pytest.raises(ValueError, match="dim=3 is too small for 3 scales"):
        CrossScaleEmbed(3, (2, 4, 6), 2).check()
    CrossScaleEmbed(4, (2, 4, 6), 2).check()
