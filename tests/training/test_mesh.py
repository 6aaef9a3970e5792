"""The mesh's sizes are checked at the door; the rule by shape cuts what is worth it."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from vix_flax.training.mesh import (
    AXES,
    batch_sharding,
    make_mesh,
    parse_mesh,
    put_batch,
    put_whole,
    state_shardings,
)

MESH = AbstractMesh((2, 4), AXES)


@pytest.mark.parametrize(
    ("text", "sizes"), [("data=8", (8, 1)), ("fsdp=2", (1, 2)), ("fsdp=2,data=4", (4, 2))]
)
def test_sizes_of_the_axes(text, sizes):
    assert tuple(parse_mesh(text)[axis] for axis in AXES) == sizes


@pytest.mark.parametrize(
    "text", ["model=2", "dat=2", "data", "data=0", "data=-1", "data=two", "", "data=2,data=4"]
)
def test_what_is_no_mesh(text):
    with pytest.raises(ValueError, match="mesh="):
        parse_mesh(text)


def test_more_devices_than_there_are():
    with pytest.raises(ValueError, match="mesh='data=64' is for 64 devices, and there are 1"):
        make_mesh("data=64")
    assert make_mesh().shape == {"data": 1, "fsdp": 1}


class Device:
    """As much of a device as sorting sees."""

    def __init__(self, id):
        self.id, self.process_index = id, 0


@pytest.mark.parametrize(("batch_size", "count"), [(64, 8), (60, 6), (7, 7), (121, 1)])
def test_by_default_as_many_devices_as_can_share_a_batch(batch_size, count, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [Device(i) for i in range(8)])
    monkeypatch.setattr("vix_flax.training.mesh.Mesh", lambda grid, *_, **__: grid)
    assert make_mesh(None, batch_size).shape == (count, 1)
    with pytest.raises(ValueError, match=r"8 devices cannot share a batch of 60 images"):
        make_mesh("data=4,fsdp=2", 60)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((64, 32), ("fsdp",)),
        ((32, 64), (None, "fsdp")),
        ((63, 32), (None, "fsdp")),  # four do not divide the longest
        ((3, 3, 16, 64), (None, None, None, "fsdp")),
        ((63, 33), ()),
        ((16, 16), ()),  # too small to be worth it
        ((), ()),
    ],
)
def test_the_longest_dimension_that_can_be_is_cut(shape, spec):
    found = state_shardings({"x": jax.ShapeDtypeStruct(shape, "float32")}, MESH)["x"].spec
    assert found == PartitionSpec(*spec)


def test_without_fsdp_every_device_has_all():
    mesh = AbstractMesh((8, 1), AXES)
    found = state_shardings({"x": jax.ShapeDtypeStruct((64, 64), "float32")}, mesh)
    assert found["x"].spec == PartitionSpec()


def test_batches_are_cut_in_their_images():
    assert batch_sharding("image", 4, MESH).spec == PartitionSpec(AXES)
    assert batch_sharding("index", 1, MESH).spec == PartitionSpec(AXES)
    assert batch_sharding("index", 2, MESH).spec == PartitionSpec(None, AXES)
    assert batch_sharding("image", 4, MESH, resident=True).spec == PartitionSpec()


def test_what_is_on_devices_already_stays():
    mesh = make_mesh()
    held = put_whole({"image": np.zeros((4, 2)), "label": np.arange(4)}, mesh)
    batch = put_batch({**held, "index": np.arange(2)}, mesh)
    assert batch["image"] is held["image"]
    assert batch["index"].tolist() == [0, 1]
