import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax import create_model
from vix_flax.training import parts
from vix_flax.training.objective import Classify, OwnLoss
from vix_flax.training.parts import (
    forward,
    gradient_in_cache,
    gradient_in_parts,
    gradient_of,
    likely_parts,
    mean_of_images,
    parts_in_cache,
)

KEPT = 4000


@pytest.fixture
def limit(monkeypatch):
    def set_bytes(size, of_pairs=0):
        """Of a part, on a device among others; one that is alone may keep four times as much."""
        monkeypatch.setattr(parts, "KEPT_BYTES", size)
        monkeypatch.setattr(parts, "PAIRS_BYTES", of_pairs)
        monkeypatch.setattr(parts, "KEPT_ALONE_BYTES", 4 * size)
        monkeypatch.setattr(parts, "PAIRS_ALONE_BYTES", 4 * of_pairs)

    return set_bytes


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [(4000, 1, 1), (3999, 1, 2), (1000, 1, 4), (700, 1, 6), (1, 1, 12), (1000, 3, 6), (1, 12, 12)],
)
def test_there_are_the_fewest_parts_that_keep_little(limit, size, least, expected):
    limit(size)
    assert parts_in_cache(KEPT, 12, least, alone=False) == expected


@pytest.mark.parametrize(("size", "expected"), [(1000, 1), (999, 2), (250, 4)])
def test_a_device_that_is_alone_has_larger_parts(limit, size, expected):
    limit(size)
    assert parts_in_cache(KEPT, 12, 1, alone=True) == expected


@pytest.mark.parametrize(
    ("size", "of_pairs", "least", "expected"),
    [(1, 666, 1, 12), (1, 667, 1, 6), (1, 4000, 1, 6), (1000, 4000, 1, 4), (1, 4000, 4, 4)],
)
def test_two_images_stay_together_unless_they_keep_much(limit, size, of_pairs, least, expected):
    limit(size, of_pairs)
    assert parts_in_cache(KEPT, 12, least, alone=False) == expected


@pytest.mark.parametrize(
    ("images", "least", "expected"),
    [(12, 1, 6), (12, 4, 4), (12, 12, 12), (2, 1, 1), (1, 1, 1), (9, 1, 3), (5, 2, 2)],
)
def test_two_images_a_part_are_tried_first_but_all_of_a_small_model(limit, images, least, expected):
    limit(1000)
    assert likely_parts(1001, images, least) == expected
    assert likely_parts(1000 // images, images, least) == least


def loss_of(params, extra, images, labels, key, context):
    """Keeps a float32 for each pixel, and one for each image."""
    loss = jnp.square(jnp.tanh(params * images).sum(axis=1) - labels).mean() + context
    return loss, ({"largest": images.max()}, {"seen": extra["seen"] + len(images)})


def given(images=12):
    pixels = jax.random.normal(jax.random.key(0), (images, 10))
    return jnp.ones(10), {"seen": 0}, pixels, jnp.ones(images), jax.random.key(0), 3.0


def test_what_is_kept_is_counted_without_what_was_given():
    finish, kept = forward(loss_of, *given())
    assert 12 * 10 * 4 <= kept <= 2 * 12 * 10 * 4 + 12 * 4 + 8
    (grad, metrics), extra = finish()
    params, *others = given()
    value, expected = jax.value_and_grad(lambda params: loss_of(params, *others)[0])(params)
    np.testing.assert_allclose(grad, expected, rtol=1e-5)
    assert (metrics["loss"], extra["seen"]) == (value, 12)


@pytest.mark.parametrize("parts", [1, 3, 12])
def test_parts_have_the_mean_gradient_and_leave_the_last_collections(parts):
    (expected, whole), _ = gradient_of(loss_of)(*given())
    (grad, metrics), extra = gradient_in_parts(gradient_of(loss_of), parts)(*given())
    np.testing.assert_allclose(grad, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], whole["loss"], rtol=1e-5)
    assert extra["seen"] == 12


@pytest.mark.parametrize(
    ("images_kept", "devices", "seen"),
    [(2, 1, [2]), (3, 1, [2, 3]), (12, 1, [2, 12]), (0.5, 1, [2]), (1, 2, [4, 2]), (2, 2, [4])],
)
def test_of_the_right_parts_nothing_is_traced_twice(limit, images_kept, devices, seen):
    """A device that is alone keeps four times as much."""
    _, kept = forward(loss_of, *given(12))
    pairs = 0 if images_kept == 1 else kept  # a part of one image may be chosen, or not
    limit(images_kept * kept / 12 * 1.01 / (4 if devices == 1 else 1), pairs)
    traced = []

    def watched(params, extra, images, *others):
        traced.append(len(images))
        return loss_of(params, extra, images, *others)

    gradient = gradient_in_cache(watched, least=1, devices=devices)
    (grad, _), _ = gradient(*given())
    assert traced == seen
    (expected, _), _ = gradient_of(loss_of)(*given())
    np.testing.assert_allclose(grad, expected, rtol=1e-5)


@pytest.mark.parametrize(("share", "images"), [(1.1, 12), (0.6, 3), (0.1, 1)])
def test_devices_are_alone_with_several_parts_only(limit, share, images):
    """In one, all together draw dropout as a single device does."""
    _, kept = forward(loss_of, *given())
    limit(share * kept / 2)
    seen = []

    def each(gradient):
        def of_one_device(params, extra, images, labels, *others):
            seen.append("alone")
            return gradient(params, extra, images[::2], labels[::2], *others)

        return of_one_device

    def watched(params, extra, images, *others):
        seen.append(len(images))
        return loss_of(params, extra, images, *others)

    gradient_in_cache(watched, least=1, devices=2, each=each)(*given())
    assert seen[-1] == images
    assert (seen[-2:-1] == ["alone"]) == (images < 12)


def test_a_loss_is_the_mean_of_its_images_unless_they_read_their_mates():
    plain, published = create_model("vin"), create_model("vin", reference=True)
    assert mean_of_images(plain.apply, Classify())
    assert not mean_of_images(published.apply, Classify())
    assert not mean_of_images(plain.apply, OwnLoss())
    assert not mean_of_images(plain.apply, lambda *_: 0)
