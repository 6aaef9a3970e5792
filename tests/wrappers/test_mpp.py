"""Masked patch prediction: what is masked, what is to be guessed, and that guessing is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vix_flax as vix
from vix_flax.wrappers.mpp import Draws, colour_labels, draw, mask_patches

VIT = vix.DualNormViT(
    image_size=8, patch_size=2, num_classes=3, dim=8, depth=1, heads=2, dim_head=4, mlp_dim=8
)  # fmt: skip
MPP = vix.MPP(transformer=VIT, patch_size=2, dim=8, mask_prob=0.4)
IMG = jax.random.uniform(jax.random.key(0), (3, 8, 8, 3))


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MPP.init)({"params": jax.random.key(1), "mask": jax.random.key(2)}, IMG)


def test_so_many_patches_an_image_are_masked_and_the_others_left():
    patches = jax.random.normal(jax.random.key(0), (4, 10, 6))
    token = jnp.full((1, 1, 6), 7.0)
    draws = draw(jax.random.key(1), 4, 10)
    out, masked = mask_patches(patches, token, draws, 0.25, 0.5, 0.5)
    np.testing.assert_array_equal(masked.sum(axis=1), 3)
    np.testing.assert_array_equal(out[~masked], patches[~masked])


def test_shares_of_mask_token_random_patch_and_nothing():
    n = 4000
    patches = jnp.arange(n, dtype=jnp.float32)[None, :, None] + jnp.zeros((1, n, 2))
    token = jnp.full((1, 1, 2), -1.0)
    out, masked = mask_patches(patches, token, draw(jax.random.key(0), 1, n), 1.0, 0.3, 0.5)
    assert masked.all()
    became_token = np.asarray(out[0, :, 0] == -1)
    kept = np.asarray(out[0, :, 0] == patches[0, :, 0])
    np.testing.assert_allclose(became_token.mean(), 0.3, atol=0.03)
    np.testing.assert_allclose(1 - became_token.mean() - kept.mean(), 0.5, atol=0.03)


def test_the_token_overrides_the_random_patch():
    patches = jnp.arange(4.0)[None, :, None]
    everything = jnp.zeros((1, 4))
    draws = Draws(everything, everything, jnp.zeros((1, 4), int), everything)
    out, _ = mask_patches(patches, jnp.full((1, 1, 1), 9.0), draws, 1.0, 0.5, 0.5)
    np.testing.assert_array_equal(out, 9)


def test_labels_are_bins_of_the_mean_colour():
    patch = jnp.array([0.0, 0.30, 5.0] * 4).reshape(1, 1, 12)  # red 0, green 0.3, blue too bright
    assert colour_labels(patch, 3, 3, 1.0)[0, 0] == 0 + 2 * 8 + 7 * 64
    edge = jnp.full((1, 1, 12), 0.125)  # a value on an edge belongs below it
    assert colour_labels(edge, 3, 3, 1.0)[0, 0] == 0


def test_labels_vary_with_the_image():
    patches = IMG.reshape(3, 4, 2, 4, 2, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 16, 12)
    labels = MPP.labels(patches)
    assert len(np.unique(labels)) > 5
    assert not np.array_equal(labels[0], labels[1])
    normal = vix.MPP(transformer=VIT, patch_size=2, dim=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    np.testing.assert_array_equal(normal.labels((patches - 0.5) / 0.25), labels)


def test_guessing_is_learned(variables):
    rng = {"mask": jax.random.key(3)}
    step = jax.jit(jax.value_and_grad(lambda v: MPP.apply(v, IMG, rngs=rng)))
    first, grads = step(variables)
    assert np.abs(grads["params"]["mask_token"]).max() > 0
    held = variables
    for _ in range(20):
        loss, grads = step(held)
        held = jax.tree.map(lambda p, g: p - 0.3 * g, held, grads)
    assert loss < 0.8 * first


def test_the_draw_matters(variables):
    loss = jax.jit(lambda key: MPP.apply(variables, IMG, rngs={"mask": key}))
    losses = {float(loss(jax.random.key(seed))) for seed in range(3)}
    assert len(losses) == 3


def test_the_transformer_loads_in_the_plain_model(variables):
    model, plain = MPP.to_model(variables)
    assert model == VIT
    assert model.apply(plain, IMG).shape == (3, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(patch_size=4), r"patch_size=\(4, 4\) must be the transformer's, \(2, 2\)"),
        (dict(dim=9), "dim=9 must be the transformer's, 8"),
        (dict(mask_prob=0), "mask_prob=0 must be above 0"),
        (dict(replace_prob=1), "replace_prob=1 must be at least 0 and below 1"),
        (dict(mean=(0.5,) * 3), "mean and std go together"),
        (dict(transformer=vix.create_model("cvt_cifar")), "CvT must be a ViT on patches"),
    ],
)
def test_what_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        vix.MPP(**{"transformer": VIT, "patch_size": 2, "dim": 8, **fields})
