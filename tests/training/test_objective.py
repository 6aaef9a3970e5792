"""What a step makes small: labels alone, or a teacher beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vix_flax.training import Classify, Distill, cross_entropy

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


def test_classify_is_the_cross_entropy():
    wanted = cross_entropy(IMAGES @ OURS["w"], LABELS, 0.1).mean()
    np.testing.assert_allclose(run(Classify(0.1)), wanted, rtol=1e-6)


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
