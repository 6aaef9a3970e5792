"""The loop reports every epoch and stops at a loss that is no number; evaluation counts exactly."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from vix_flax.data import Augment, Split, TrainBatches, eval_batches, load_dataset
from vix_flax.training import (
    OwnLoss,
    create_state,
    evaluate,
    evaluate_own_loss,
    fit,
    make_optimizer,
    train_step,
)
from vix_flax.training.loop import LAG

IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 1), "float32")
NORMALIZE = Augment((0.305,), (0.376,))
STEP = partial(train_step, augment=NORMALIZE)


class Linear(nn.Module):
    """Logistic regression on pixels."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return nn.Dense(10)(x.reshape(len(x), -1))


MODEL = Linear()
EPOCHS, BATCH = 3, 100


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def some(digits):
    return Split(digits.test.images[:50], digits.test.labels[:50])


@cache
def created():
    tx = make_optimizer("adamw", optax.constant_schedule(1e-2), weight_decay=0.0)
    return create_state(MODEL, IMAGE, tx)


def fresh(ema=False):
    """A new state that may be donated."""
    state = jax.tree.map(jnp.copy, created())
    return state.replace(ema=jax.tree.map(jnp.copy, state.params) if ema else None)


def validated(digits, variables, batch_size):
    return evaluate(variables, eval_batches(digits.val, batch_size), MODEL.apply, NORMALIZE)


def epochs_of(digits, state, epochs=EPOCHS, step=STEP, **options):
    return fit(
        state,
        epochs,
        TrainBatches(digits.train, BATCH).epoch,
        lambda variables: validated(digits, variables, 64),
        step,
        **options,
    )


@pytest.fixture(scope="module")
def fitted(digits):
    return list(epochs_of(digits, fresh()))


@pytest.mark.parametrize("batch_size", [1, 7, 25, 49, 50, 64])
def test_evaluation_does_not_depend_on_the_batch_size(some, batch_size):
    variables = fresh().eval_variables
    logits = MODEL.apply(variables, NORMALIZE(some.images))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, some.labels)
    predicted = np.asarray(logits.argmax(axis=-1))

    result = evaluate(variables, eval_batches(some, batch_size), MODEL.apply, NORMALIZE)
    assert result["loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert result["accuracy"] == pytest.approx((predicted == some.labels).mean())
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (some.labels, predicted), 1)
    np.testing.assert_array_equal(result["confusion"], expected)


def test_every_epoch_is_a_row(fitted, digits):
    steps = len(digits.train) // BATCH
    rows = [row for _, row in fitted]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [steps, 2 * steps, 3 * steps]
    for row in rows:
        assert 0 <= row["train_accuracy"] <= 1
        assert all(isinstance(value, int | float) for value in row.values())
        assert row["grad_norm"] > 0
        assert row["images_per_second"] > 0


def test_training_and_validation_loss_fall(fitted):
    first, last = fitted[0][1], fitted[-1][1]
    assert last["train_loss"] < first["train_loss"]
    assert last["val_loss"] < first["val_loss"]
    assert last["val_accuracy"] > 0.8


def test_the_row_is_of_the_state_that_comes_with_it(fitted, digits):
    state, row = fitted[-1]
    result = validated(digits, state.eval_variables, 17)
    assert row["val_loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert row["val_accuracy"] == pytest.approx(result["accuracy"])


def test_with_an_average_that_is_what_is_validated(digits):
    step = partial(STEP, ema_decay=0.99)
    ((state, row),) = epochs_of(digits, fresh(ema=True), epochs=1, step=step)
    average = validated(digits, {"params": state.ema}, 64)
    last = validated(digits, {"params": state.params}, 64)
    assert row["val_loss"] == average["loss"] != last["loss"]


def test_on_step_is_called_after_every_step(digits):
    calls = []
    list(epochs_of(digits, fresh(), epochs=1, on_step=lambda *args: calls.append(args)))
    steps = len(digits.train) // BATCH
    assert [int(state.step) for state, *_ in calls[-1:]] == [steps]
    assert len(calls) == len(calls[-1][2]) == steps
    assert {epoch for _, epoch, _ in calls} == {0}


@pytest.mark.parametrize("bad_step", [1, 3, 13])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(digits, bad_step):
    steps = []

    def batches(epoch):
        for _ in range(12):
            steps.append(1)
            nan = np.full((8, 8, 8, 1), np.nan if len(steps) == bad_step else 1, np.float32)
            yield {"image": nan, "label": np.zeros(8, np.int32)}

    with pytest.raises(FloatingPointError, match=f"^step {bad_step}: the loss is nan, .* Dense_0/"):
        list(fit(fresh(), 2, batches, lambda v: validated(digits, v, 64), STEP))
    assert len(steps) <= bad_step + LAG


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_loss_of_its_own_counts_each_image_once(some, batch_size):
    def brightness(variables, images, rngs):
        return images.mean() * variables["w"]

    batches = eval_batches(some, batch_size)
    result = evaluate_own_loss({"w": 2.0}, batches, brightness, NORMALIZE, OwnLoss())
    assert result["loss"] == pytest.approx(2 * float(NORMALIZE(some.images).mean()), rel=1e-4)
