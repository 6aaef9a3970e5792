"""Splits are checked when built; batches cover them in an order that is known."""

import numpy as np
import pytest

from vix_flax.data import Dataset, Split, eval_batches, load_dataset, train_batches


def numbered(n):
    """A split whose i-th image has value i everywhere and label i."""
    images = np.arange(n, dtype=np.uint8).repeat(2 * 3).reshape(n, 2, 3, 1)
    return Split(images, np.arange(n, dtype=np.int32))


def dataset(classes="ab", **splits):
    return Dataset(
        "toy", tuple(classes), (0.5,), (0.5,), **{s: numbered(2) for s in PARTS} | splits
    )


PARTS = ("train", "val", "test")


def order(split, batch_size, seed, epoch):
    batches = list(train_batches(split, batch_size, seed, epoch))
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
    for batch in train_batches(numbered(20), 6, 0, 0):
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


def test_image_shape_is_height_width_channels():
    assert dataset().image_shape == (2, 3, 1)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split(np.zeros((2, 2, 3, 1), np.float32), np.zeros(2, np.int32)), "float32"),
        (Split(np.zeros((2, 2, 3), np.uint8), np.zeros(2, np.int32)), r"\(2, 2, 3\)"),
        (Split(np.zeros((2, 2, 3, 1), np.uint8), np.zeros(3, np.int32)), "2 images for 3 labels"),
        (Split(np.zeros((0, 2, 3, 1), np.uint8), np.zeros(0, np.int32)), "0 images"),
        (Split(np.zeros((2, 2, 3, 1), np.uint8), np.array([0, 2], np.int32)), "0 to 2"),
        (Split(np.zeros((2, 2, 3, 1), np.uint8), np.array([-1, 1], np.int32)), "-1"),
    ],
)
def test_a_split_that_cannot_be_trained_on_is_refused_by_name(part, split, message):
    with pytest.raises(ValueError, match=f"toy/{part}.*{message}"):
        dataset(**{part: split})


def test_an_unknown_data_set_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"'digit'.*'digits'"):
        load_dataset("digit")
