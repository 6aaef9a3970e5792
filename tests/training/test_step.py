"""One step of training and of evaluation, on toys and on models with collections of their own."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import vix_flax as vix
from vix_flax.data import Augment, load_dataset
from vix_flax.training import Classify, create_state, eval_step, make_optimizer, train_step

IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 1), "float32")
NORMALIZE = Augment((0.305,), (0.376,))


class Toy(nn.Module):
    """An MLP on pixels."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.relu(nn.Dense(32, kernel_init=INIT)(x.reshape(len(x), -1)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(10, kernel_init=INIT)(x)


class AttendingToy(nn.Module):
    """Rows of an image as tokens of one Performer head."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Dense(8, kernel_init=INIT)(x[..., 0])[:, :, None, :]
        x = vix.Performer()(x, x, x, train=train)
        return nn.Dense(10, kernel_init=INIT)(x.mean(axis=(1, 2)))


INIT = lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -0.2, 0.2)
TOY, DROPPING_TOY, ATTENDING_TOY = Toy(), Toy(dropout=0.5), AttendingToy()
FNET2D = vix.FNet2D(num_classes=10, dim=8, depth=1, mlp_dim=8, channels=1)
FAST = make_optimizer("adamw", optax.constant_schedule(1e-2), weight_decay=0.0)
STILL = make_optimizer("adamw", optax.constant_schedule(0.0), weight_decay=0.0)


@cache
def created(model):
    return create_state(model, IMAGE, FAST)


def fresh(model, tx=FAST, ema=False):
    """A new state that may be donated; compiled once for each kind of model."""
    state = jax.tree.map(jnp.copy, created(TOY if model == DROPPING_TOY else model))
    average = jax.tree.map(jnp.copy, state.params) if ema else None
    return state.replace(apply_fn=model.apply, tx=tx, ema=average)


@jax.jit
def by_hand(params, batch):
    """The toy's mean loss, and of each image the loss and the predicted class."""
    logits = TOY.apply({"params": params}, NORMALIZE(batch["image"]))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
    return losses.mean(), (losses, logits.argmax(axis=-1))


@pytest.fixture(scope="module")
def batch():
    split = load_dataset("digits").train
    return {"image": split.images[:32], "label": split.labels[:32]}


@pytest.fixture(scope="module")
def masked(batch):
    return batch | {"mask": np.ones(32, np.float32)}


def steps(state, batch, count, **options):
    """The state after `count` steps, and the metrics of each as floats."""
    rows = []
    for _ in range(count):
        state, metrics = train_step(state, batch, **{"augment": NORMALIZE} | options)
        rows.append({name: float(value) for name, value in metrics.items()})
    return state, rows


def copied(tree):
    """A copy on the host, which donation cannot touch."""
    return jax.tree.map(np.array, tree)


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_the_loss_falls_on_one_batch(batch):
    state, rows = steps(fresh(TOY), batch, 30)
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]
    assert rows[-1]["accuracy"] > rows[0]["accuracy"]
    assert state.step == 30


def test_metrics_are_those_of_the_parameters_before_the_step(batch):
    state = fresh(TOY)
    (loss, (_, predicted)), grads = jax.value_and_grad(by_hand, has_aux=True)(state.params, batch)
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(grads)))
    _, (row,) = steps(state, batch, 1)
    assert row["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert row["accuracy"] == pytest.approx((predicted == batch["label"]).mean())
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_smoothing_raises_the_loss_that_is_reached(batch):
    _, plain = steps(fresh(TOY), batch, 30)
    _, smooth = steps(fresh(TOY), batch, 30, objective=Classify(smoothing=0.2))
    assert smooth[-1]["loss"] > plain[-1]["loss"] + 0.3


def test_equal_seeds_and_steps_give_equal_results(batch):
    augment = Augment((0.305,), (0.376,), crop_padding=1, flip=True)
    ends = [steps(fresh(DROPPING_TOY), batch, 2, augment=augment) for _ in range(2)]
    assert equal(ends[0][0].params, ends[1][0].params)
    assert ends[0][1] == ends[1][1]


def test_dropout_differs_between_steps_and_between_seeds(batch):
    # The learning rate is 0, so that only dropout can change the loss.
    _, (first, second) = steps(fresh(DROPPING_TOY, STILL), batch, 2)
    assert first["loss"] != second["loss"]
    _, (first, second) = steps(fresh(TOY, STILL), batch, 2)
    assert first["loss"] == second["loss"]
    state = fresh(DROPPING_TOY, STILL)
    _, (other,) = steps(state.replace(rng=jax.random.key(99)), batch, 1)
    assert other["loss"] != first["loss"]


def test_augmentation_differs_between_steps(batch):
    augment = Augment((0.305,), (0.376,), crop_padding=2)
    _, (first, second) = steps(fresh(TOY, STILL), batch, 2, augment=augment)
    assert first["loss"] != second["loss"]


def test_the_old_state_is_donated(batch):
    old = fresh(TOY, ema=True)
    steps(old, batch, 1)
    for leaf in jax.tree.leaves((old.params, old.opt_state, old.ema)):
        assert leaf.is_deleted()


def test_the_batch_is_not_donated(batch):
    kept = {name: jnp.asarray(value) for name, value in batch.items()}
    steps(fresh(TOY), kept, 1)
    assert not any(array.is_deleted() for array in kept.values())


def test_the_average_follows_its_formula(batch):
    state = fresh(TOY, ema=True)
    expected = copied(state.params)
    for decay in (2 / 11, 3 / 12, 0.3):  # (1 + t) / (10 + t), up to the decay asked for
        state, _ = steps(state, batch, 1, ema_decay=0.3)
        expected = jax.tree.map(
            lambda e, p, d=decay: d * e + (1 - d) * np.array(p), expected, state.params
        )
    check = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    jax.tree.map(check, state.ema, expected)
    assert not equal(state.ema, state.params)


def test_no_average_is_kept_unless_asked_for(batch):
    state, _ = steps(fresh(TOY), batch, 1)
    assert state.ema is None


def evaluated(model, variables, masked):
    sums = eval_step(variables, masked, apply_fn=model.apply, augment=NORMALIZE)
    return float(sums["loss"])


@pytest.fixture(scope="module")
def normed(batch):
    """The statistics before, and the state after, a step in which no parameter moves."""
    before = copied(created(FNET2D).extra)
    state, _ = steps(fresh(FNET2D, STILL), batch, 1)
    return before, state


def test_running_statistics_change_in_training(normed):
    before, state = normed
    assert state.extra.keys() == before.keys() == {"batch_stats"}
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, copied(state.extra))
    assert all(jax.tree.leaves(changed))
    assert equal(state.params, created(FNET2D).params)


def test_evaluation_uses_the_running_statistics(normed, masked):
    before, state = normed
    new = state.eval_variables
    assert evaluated(FNET2D, new, masked) != evaluated(FNET2D, new | before, masked)


def test_in_evaluation_no_image_depends_on_its_batch(normed, batch):
    _, state = normed
    first = {"label": batch["label"], "mask": np.eye(32, dtype=np.float32)[0]}
    among_black = np.where(first["mask"][:, None, None, None], batch["image"], 0).astype(np.uint8)
    losses = [
        evaluated(FNET2D, state.eval_variables, first | {"image": images})
        for images in (batch["image"], among_black)
    ]
    assert losses[0] == pytest.approx(losses[1])


def test_accumulated_parts_make_the_step_of_the_whole_batch(batch):
    whole, rows = steps(fresh(TOY), batch, 3)
    parts, others = steps(fresh(TOY), batch, 3, accumulate=4)
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        whole.params,
        parts.params,
    )


@pytest.mark.parametrize("accumulate", [1, 4])
def test_on_a_cpu_parts_that_fit_the_cache_change_nothing(batch, monkeypatch, accumulate):
    whole, rows = steps(fresh(TOY), batch, 3)
    monkeypatch.setattr("vix_flax.training.parts.KEPT_ALONE_BYTES", 1)
    anew = dict(ema_decay=0.5 / accumulate)  # of no effect here, but another program
    program = train_step.lower(fresh(TOY), batch, augment=NORMALIZE, accumulate=accumulate, **anew)
    assert "stablehlo.while" in program.as_text()
    parts, others = steps(fresh(TOY), batch, 3, accumulate=accumulate, **anew)
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    chex.assert_trees_all_close(whole.params, parts.params, rtol=1e-3, atol=1e-5)


def test_every_part_moves_the_running_statistics(normed, batch):
    model = FNET2D
    one, _ = steps(fresh(model, STILL), batch, 1)
    four, _ = steps(fresh(model, STILL), batch, 1, accumulate=4)
    moved = [
        max(
            float(np.abs(after - before).max())
            for after, before in zip(
                jax.tree.leaves(state.extra), jax.tree.leaves(created(model).extra), strict=True
            )
        )
        for state in (one, four)
    ]
    assert moved[1] > 2 * moved[0] > 0


def test_performer_features_are_not_trained(batch):
    state = fresh(ATTENDING_TOY)
    features, params = copied(state.extra["features"]), copied(state.params)
    state, _ = steps(state, batch, 2)
    assert equal(features, state.extra["features"])
    changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), params, copied(state.params))
    assert all(jax.tree.leaves(changed))


def test_eval_step_sums_over_real_images_alone(batch):
    mask = np.float32(np.arange(32) % 3 == 0)
    variables = created(TOY).eval_variables
    sums = eval_step(variables, batch | {"mask": mask}, apply_fn=TOY.apply, augment=NORMALIZE)

    _, (losses, predicted) = by_hand(variables["params"], batch)
    predicted, label = np.asarray(predicted), batch["label"]
    confusion = np.zeros((10, 10))
    np.add.at(confusion, (label, predicted), mask)  # true classes in rows
    assert sums["count"] == mask.sum()
    assert sums["correct"] == ((predicted == label) * mask).sum()
    assert sums["loss"] == pytest.approx((np.asarray(losses) * mask).sum(), rel=1e-5)
    np.testing.assert_array_equal(sums["confusion"], confusion)


def test_the_label_is_among_the_five_most_probable(batch):
    state = fresh(TOY)
    mask = np.arange(32) < 20
    masked = {**batch, "mask": mask.astype(np.float32)}
    sums = eval_step(state.eval_variables, masked, apply_fn=state.apply_fn, augment=NORMALIZE)
    logits = TOY.apply(state.eval_variables, NORMALIZE(batch["image"]))
    best = np.argsort(-np.asarray(logits), axis=1)[:, :5]
    assert sums["in_top5"] == (best == batch["label"][:, None])[:20].any(axis=1).sum()


@pytest.mark.parametrize("logit", [np.nan, 1.0])
def test_what_does_not_rank_the_classes_is_not_in_the_top_five(batch, logit):
    def constant(variables, images):
        return jnp.full((len(images), 10), logit)

    full = {**batch, "label": np.full(32, 9, np.int32), "mask": np.ones(32, np.float32)}
    assert eval_step({}, full, apply_fn=constant, augment=NORMALIZE)["in_top5"] == 0


def test_dropout_is_off_in_evaluation(masked):
    state = fresh(DROPPING_TOY)
    losses = {evaluated(DROPPING_TOY, state.eval_variables, masked) for _ in range(2)}
    assert losses == {evaluated(TOY, state.eval_variables, masked)}


def test_a_step_trains_on_mixed_images_and_labels(batch):
    seen = {}

    def mix(images, labels, key):
        seen.update(images=images.shape, labels=labels.dtype)
        return images[::-1], jax.nn.one_hot(labels[::-1], 10)

    _, mixed = train_step(fresh(TOY), batch, augment=NORMALIZE, mix=mix)
    backwards = {name: value[::-1] for name, value in batch.items()}
    _, plain = train_step(fresh(TOY), backwards, augment=NORMALIZE)
    assert seen == {"images": (32, 8, 8, 1), "labels": jnp.int32}
    np.testing.assert_allclose(mixed["loss"], plain["loss"], rtol=1e-5)
    assert mixed["accuracy"] == plain["accuracy"]
