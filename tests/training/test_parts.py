from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax import create_model
from vix_flax.training import parts
from vix_flax.training.objective import Classify, OwnLoss
from vix_flax.training.parts import (
    each_image_alone,
    mean_of_images,
    parts_in_cache,
)

# 4,000 bytes
KEPT = (jax.ShapeDtypeStruct((900,), jnp.float32), jnp.zeros((10, 20), jnp.bfloat16))


@pytest.fixture
def kept(monkeypatch):
    def set_bytes(size, of_pairs=0):
        """Of a part, on a device that is alone."""
        monkeypatch.setattr(parts, "KEPT_BYTES", {} if size is None else {"cpu": size / 2})
        monkeypatch.setattr(parts, "PAIRS_BYTES", of_pairs)

    return set_bytes


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [(4000, 1, 1), (3999, 1, 2), (1000, 1, 4), (700, 1, 6), (1, 1, 12), (1000, 3, 6), (1, 12, 12)],
)
def test_there_are_the_fewest_parts_that_keep_little(kept, size, least, expected):
    kept(size)
    assert parts_in_cache(KEPT, 12, least, None) == expected


@pytest.mark.parametrize(("size", "expected"), [(8000, 1), (4000, 2), (2000, 6), (1, 6)])
def test_of_several_devices_each_needs_less_and_a_share_of_every_part(kept, size, expected):
    kept(size)
    mesh = SimpleNamespace(size=2, devices=np.array(2 * jax.devices("cpu")[:1]))
    assert parts_in_cache(KEPT, 12, 1, mesh) == expected


@pytest.mark.parametrize(
    ("size", "of_pairs", "least", "expected"),
    [(1, 666, 1, 12), (1, 667, 1, 6), (1, 4000, 1, 6), (1000, 4000, 1, 4), (1, 4000, 4, 4)],
)
def test_two_images_stay_together_unless_they_keep_much(kept, size, of_pairs, least, expected):
    kept(size, of_pairs)
    assert parts_in_cache(KEPT, 12, least, None) == expected


def test_a_gpu_sees_the_whole_batch(kept):
    kept(None)
    assert parts_in_cache(KEPT, 12, 1, None) == 1
    assert parts_in_cache(KEPT, 12, 3, None) == 3


def test_a_batch_is_kept_whole_where_images_read_their_mates():
    plain, published = create_model("vin"), create_model("vin", reference=True)
    assert each_image_alone(plain.apply, Classify(), {})
    assert not each_image_alone(published.apply, Classify(), {})
    assert not each_image_alone(plain.apply, Classify(), {"batch_stats": {}})
    assert not each_image_alone(plain.apply, OwnLoss(), {})
    assert not each_image_alone(plain.apply, lambda *_: 0, {})


def test_batch_norm_apart_a_loss_is_the_mean_of_its_images():
    plain, published = create_model("vin"), create_model("vin", reference=True)
    assert mean_of_images(plain.apply, Classify())
    assert not mean_of_images(published.apply, Classify())
    assert not mean_of_images(plain.apply, OwnLoss())
