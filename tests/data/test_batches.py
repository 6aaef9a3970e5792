"""Batches cover a split in an order that is known, by every loader, from wherever they stopped."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from vix_flax.data import LOADERS, Augment, Split, TrainBatches, choose_loader, eval_batches
from vix_flax.data.decode import OnDemand
from vix_flax.data.files import files_in
from vix_flax.training import create_state, train_step


def numbered(n):
    """A split whose i-th image has value i everywhere and label i."""
    images = np.arange(n, dtype=np.uint8).repeat(2 * 3).reshape(n, 2, 3, 1)
    return Split(images, np.arange(n, dtype=np.int32))


def order(split, batch_size, seed, epoch):
    batches = list(TrainBatches(split, batch_size, seed).epoch(epoch))
    return np.concatenate([batch["label"] for batch in batches]).tolist()


def test_the_order_of_training_is_fixed_by_seed_and_epoch():
    split = numbered(50)
    assert order(split, 10, seed=1, epoch=3) == order(split, 10, seed=1, epoch=3)
    assert order(split, 10, seed=1, epoch=3) != order(split, 10, seed=1, epoch=4)
    assert order(split, 10, seed=1, epoch=3) != order(split, 10, seed=2, epoch=3)


def test_the_order_of_training_does_not_depend_on_the_batch_size():
    assert order(numbered(48), 4, 0, 0) == order(numbered(48), 12, 0, 0)


def test_an_epoch_has_no_image_twice_and_drops_the_incomplete_batch():
    seen = order(numbered(50), 8, 0, 0)
    assert len(seen) == 48
    assert len(set(seen)) == 48


def test_what_one_epoch_drops_another_epoch_sees():
    seen = {label for epoch in range(5) for label in order(numbered(50), 8, 0, epoch)}
    assert seen == set(range(50))


def test_a_split_smaller_than_a_batch_is_one_batch():
    assert sorted(order(numbered(5), 128, 0, 0)) == list(range(5))


def test_training_images_stay_with_their_labels():
    for batch in TrainBatches(numbered(20), 6).epoch(0):
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"][:, 1, 2, 0], batch["label"])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10, 11, 100])
def test_evaluation_sees_every_image_exactly_once(batch_size):
    batches = list(eval_batches(numbered(10), batch_size))
    assert len({batch["image"].shape for batch in batches}) == 1
    labels = [batch["label"][batch["mask"] == 1] for batch in batches]
    np.testing.assert_array_equal(np.concatenate(labels), np.arange(10))
    for batch in batches:
        real = batch["mask"] == 1
        np.testing.assert_array_equal(batch["image"][real, 0, 0, 0], batch["label"][real])
        assert set(batch["mask"]) <= {0, 1}
        assert batch["mask"].dtype == np.float32


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A split of 23 image files that are decoded when needed, and the same one decoded."""
    root = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 256, (23, 4, 6, 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(root / f"{i:02}.png")
    files, labels = files_in(root), np.arange(23, dtype=np.int32)
    return Split(OnDemand(files, np.asarray(files.names), (4, 6, 3)), labels), Split(pixels, labels)


def content(batch):
    """The batch's own images and labels, by whatever loader."""
    rows = batch.get("index", slice(None))
    return np.asarray(batch["image"][rows]), np.asarray(batch["label"][rows])


def first(batches, count):
    return [content(batch) for batch in itertools.islice(batches, count)]


def assert_same(got, wanted):
    assert len(got) == len(wanted)
    for (image, label), (other, number) in zip(got, wanted, strict=True):
        assert (image.dtype, label.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(image, other)
        np.testing.assert_array_equal(label, number)


@pytest.mark.parametrize("loader", LOADERS)
def test_every_loader_gives_the_same_images_in_the_same_order(pictures, loader):
    on_demand, decoded = pictures
    wanted = first(TrainBatches(decoded, 5, seed=3), 10)  # of two epochs and a half
    assert_same(first(TrainBatches(decoded, 5, seed=3, loader=loader), 10), wanted)
    if loader == "stream":
        assert_same(first(TrainBatches(on_demand, 5, seed=3, loader=loader), 10), wanted)


@pytest.mark.parametrize("stop", [0, 3, 4, 7])
@pytest.mark.parametrize("loader", LOADERS)
def test_what_remains_after_restoring_is_what_would_have_come(pictures, loader, stop):
    uninterrupted = first(TrainBatches(pictures[1], 5, seed=1), 12)
    batches = TrainBatches(pictures[1], 5, seed=1, loader=loader)
    first(batches, stop)
    state = batches.state()
    for again in LOADERS:
        restored = TrainBatches(pictures[1], 5, seed=1, loader=again)
        first(restored, 2)  # wherever it was
        restored.restore(state)
        assert_same(first(restored, 12 - stop), uninterrupted[stop:])


def test_restored_batches_are_augmented_alike(pictures):
    augment = jax.jit(Augment((0.5,) * 3, (0.2,) * 3, crop_padding=1, flip=True))

    def augmented(batches, steps):
        return [
            np.asarray(augment(image, jax.random.fold_in(jax.random.key(0), step)))
            for step, (image, _) in zip(steps, first(batches, len(steps)), strict=True)
        ]

    uninterrupted = augmented(TrainBatches(pictures[1], 5), range(8))
    for loader in ("memory", "stream"):
        batches = TrainBatches(pictures[1], 5, loader=loader)
        batches.restore({**batches.state(), "epoch": 1, "step": 1})
        assert np.array_equal(augmented(batches, range(5, 8)), uninterrupted[5:])


def test_an_epoch_goes_on_where_the_iterator_stands():
    batches = TrainBatches(numbered(20), 5)
    whole = first(batches.epoch(0), 10)
    batches.restore({**batches.state(), "epoch": 0, "step": 1})
    assert_same(first(batches.epoch(0), 10), whole[1:])
    assert batches.state()["epoch"] == 1
    assert_same(first(batches.epoch(0), 10), whole)


@pytest.mark.parametrize("change", [{"seed": 2}, {"batch_size": 4}, {"n": 19}])
def test_a_state_of_other_batches_is_refused(change):
    given = {"n": 20, "batch_size": 5, "seed": 1} | change
    state = TrainBatches(numbered(20), 5, seed=1).state()
    other = TrainBatches(numbered(given.pop("n")), **given)
    with pytest.raises(ValueError, match=r"these batches have \w+=\d+, the state's have \d+"):
        other.restore(state)


@pytest.mark.parametrize("loader", LOADERS)
def test_two_processes_share_every_batch(pictures, loader):
    whole = first(TrainBatches(pictures[1], 6, loader=loader), 7)
    halves = [first(TrainBatches(pictures[1], 6, 0, loader, (i, 2)), 7) for i in (0, 1)]
    joined = [
        tuple(np.concatenate(pair) for pair in zip(*both, strict=True))
        for both in zip(*halves, strict=True)
    ]
    assert_same(joined, whole)


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 12, 50])
def test_evaluation_is_shared_without_loss(pictures, batch_size, shards):
    for split in pictures:
        seen, size = [], -(-min(batch_size, 23) // 6) * 6
        for i in range(shards):
            for batch in eval_batches(split, batch_size, (i, shards), multiple_of=6):
                assert len(batch["label"]) == size // shards
                real = batch["mask"] == 1
                np.testing.assert_array_equal(
                    batch["image"][real], pictures[1].images[batch["label"][real]]
                )
                seen.extend(batch["label"][real])
        assert sorted(seen) == list(range(23))


class Linear(nn.Module):
    @nn.compact
    def __call__(self, img, *, train=False):
        return nn.Dense(23)(img.reshape(len(img), -1))


def test_the_step_gathers_a_batch_that_lies_on_the_device(pictures):
    states = []
    for loader in ("memory", "device"):
        state = create_state(Linear(), jnp.zeros((1, 4, 6, 3)), optax.sgd(0.1))
        for batch in itertools.islice(TrainBatches(pictures[1], 5, loader=loader), 5):
            state, _ = train_step(state, batch, augment=Augment((0.5,) * 3, (0.2,) * 3))
        states.append(state.params)
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loader": "memroy"}, "unknown loader 'memroy'; did you mean 'memory'"),
        ({"shard": (0, 2)}, "5 images a batch cannot be shared by 2 processes"),
        ({"shard": (2, 2)}, r"shard=\(2, 2\) must be \(i, n\)"),
    ],
)
def test_mistakes_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        TrainBatches(numbered(20), 5, **given)


def test_images_on_demand_can_only_be_streamed(pictures):
    assert choose_loader(pictures[0]) == "stream"
    assert choose_loader(pictures[1]) in ("memory", "device")
    with pytest.raises(ValueError, match="loader='memory': these images are not in memory"):
        TrainBatches(pictures[0], 5)


@pytest.mark.parametrize("steps_at_once", [1, 3])
def test_shapes_are_those_of_the_batches(pictures, steps_at_once):
    for loader in LOADERS if steps_at_once == 1 else ("device",):
        batches = TrainBatches(pictures[1], 4, loader=loader, steps_at_once=steps_at_once)
        shapes, batch = batches.shapes(), next(batches)
        assert shapes.keys() == batch.keys()
        for name, x in batch.items():
            assert (shapes[name].shape, shapes[name].dtype) == (x.shape, x.dtype)


def test_several_steps_at_once_are_the_steps_one_by_one():
    split = numbered(50)
    expected = [batch["label"] for batch in TrainBatches(split, 6, seed=3).epoch(1)]
    batches = TrainBatches(split, 6, seed=3, loader="device", steps_at_once=3)
    index = [batch["index"] for batch in batches.epoch(1)]
    assert [rows.shape for rows in index] == [(3, 6), (3, 6), (6,), (6,)]
    np.testing.assert_array_equal(np.concatenate([np.atleast_2d(rows) for rows in index]), expected)


def test_several_steps_at_once_stop_between_them():
    batches = TrainBatches(numbered(50), 6, seed=3, loader="device", steps_at_once=3)
    next(batches)
    assert batches.state()["step"] == 3


def test_images_on_the_host_come_step_by_step():
    with pytest.raises(ValueError, match=r"steps_at_once=2 needs images on the device"):
        TrainBatches(numbered(5), 2, steps_at_once=2)
