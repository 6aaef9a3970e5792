"""What a step makes small: labels alone, a teacher beside them, or what a module says itself."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vix_flax.training import Classify, Distill, OwnLoss, accuracy, cross_entropy

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
LABELS = jnp.array([0, 1, 2, 0, 1, 2])
OURS = {"w": jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)}
THEIRS = {"w": jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)}


def apply(variables, images, *, train=False, rngs=None, mutable=()):
    return images @ variables["w"], {}


def outputs(apply_fn, variables, images, **given):
    return *apply_fn(variables, images, **given), [images @ variables["w"]]


def run(objective, variables=OURS, context=THEIRS):
    return objective(apply, variables, IMAGES, LABELS, {}, context)[0]


def test_classify_is_the_cross_entropy_and_reports_accuracy():
    (_, (metrics, _)) = Classify()(apply, OURS, IMAGES, LABELS, {})
    assert metrics == {"accuracy": accuracy(IMAGES @ OURS["w"], LABELS)}
    wanted = cross_entropy(IMAGES @ OURS["w"], LABELS, 0.1).mean()
    np.testing.assert_allclose(run(Classify(0.1)), wanted, rtol=1e-6)


def test_soft_labels_are_labels_in_shares():
    logits, share = IMAGES @ OURS["w"], 0.3
    soft = share * jax.nn.one_hot(LABELS, 3) + (1 - share) * jax.nn.one_hot(LABELS[::-1], 3)
    both = [cross_entropy(logits, labels, 0.1) for labels in (LABELS, LABELS[::-1])]
    wanted = share * both[0] + (1 - share) * both[1]
    np.testing.assert_allclose(cross_entropy(logits, soft, 0.1), wanted, rtol=1e-5)
    assert accuracy(logits, soft) == accuracy(logits, LABELS[::-1])


@pytest.mark.parametrize("hard", [False, True])
def test_alpha_is_the_teachers_share(hard):
    parts = [run(Distill(apply, outputs, hard=hard, alpha=alpha)) for alpha in (0.0, 0.25, 1.0)]
    np.testing.assert_allclose(parts[1], 0.75 * parts[0] + 0.25 * parts[2], rtol=1e-5)
    np.testing.assert_allclose(parts[0], run(Classify()), rtol=1e-6)


def test_soft_is_zero_where_both_agree_and_hard_follows_decisions():
    soft = Distill(apply, outputs, alpha=1.0, temperature=2.0)
    np.testing.assert_allclose(run(soft, THEIRS), 0, atol=1e-6)
    p, q = (jax.nn.log_softmax(IMAGES @ v["w"] / 2) for v in (THEIRS, OURS))
    np.testing.assert_allclose(run(soft), 4 * (jnp.exp(p) * (p - q)).sum(1).mean(), rtol=1e-5)
    hard = Distill(apply, outputs, alpha=1.0, hard=True)
    decided = (IMAGES @ THEIRS["w"]).argmax(axis=1)
    wanted = optax.softmax_cross_entropy_with_integer_labels(IMAGES @ OURS["w"], decided).mean()
    np.testing.assert_allclose(run(hard), wanted, rtol=1e-5)


def test_blocks_are_compared_and_the_teacher_is_left_alone():
    plain, blocks = (Distill(apply, outputs, blocks=weight) for weight in (0.0, 2.0))
    difference = jnp.square(IMAGES @ (OURS["w"] - THEIRS["w"])).mean()
    np.testing.assert_allclose(run(blocks) - run(plain), 2 * difference, rtol=1e-4)
    grads = jax.grad(lambda v: run(blocks, OURS, v))(THEIRS)
    assert not np.any(grads["w"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [(dict(temperature=0.0), "must be positive"), (dict(alpha=2.0), "must be from 0 to 1")],
)
def test_what_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        Distill(apply, outputs, **fields)


def own(variables, *views, train=False, rngs=None, mutable=None):
    """A module that returns a loss: what its views are apart, and one draw."""
    loss = sum((view * (i + 1)).sum() for i, view in enumerate(views)) * variables["w"].sum()
    loss += jax.random.uniform(rngs["mask"]) + (jax.random.uniform(rngs["dropout"]) if train else 0)
    return (loss, dict.fromkeys(mutable, train)) if mutable else loss


def test_a_loss_of_its_own_sees_every_view_and_draws_from_its_streams():
    objective = OwnLoss(views=2, streams=("mask",), mutable=("target",))
    views, rngs = jnp.stack([IMAGES, 2 * IMAGES]), {"dropout": jax.random.key(3)}
    loss, (metrics, updates) = objective(own, OURS, views, LABELS, rngs)
    again, _ = objective(own, OURS, views, None, rngs)
    assert metrics == {}
    assert updates == {"target": True}
    assert loss == again
    assert loss != objective(own, OURS, views[::-1], LABELS, rngs)[0]
    assert loss != objective(own, OURS, views, LABELS, {"dropout": jax.random.key(4)})[0]


def test_a_loss_of_its_own_is_evaluated_by_the_same_draws():
    objective = OwnLoss(streams=("mask",))
    assert objective.evaluate(own, OURS, IMAGES) == objective.evaluate(own, OURS, IMAGES)


def test_variables_are_prepared_before_the_step():
    doubled = OwnLoss(streams=("mask",), prepare=lambda v: jax.tree.map(lambda w: 2 * w, v))
    plain = OwnLoss(streams=("mask",))
    rngs = {"dropout": jax.random.key(0)}
    twice = jax.tree.map(lambda w: 2 * w, OURS)
    assert doubled(own, OURS, IMAGES, None, rngs)[0] == plain(own, twice, IMAGES, None, rngs)[0]
