"""Distillation by a token: both ways train the token's head, and the student stays loadable."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vix_flax as vix

SIZES = dict(
    image_size=8, patch_size=4, num_classes=3, dim=8, depth=1, heads=2, dim_head=4, mlp_dim=8
)  # fmt: skip
STUDENT = vix.DistillableViT(**SIZES)
IMG = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
LABELS = jnp.array([0, 1, 2, 0])


def teacher(img):
    """Knows the mean colour."""
    return 3 * img.mean(axis=(1, 2))


@pytest.fixture(scope="module")
def variables():
    wrapper = vix.DistillWrapper(student=STUDENT, teacher=teacher)
    return jax.jit(wrapper.init)(jax.random.key(1), IMG, LABELS)


@pytest.mark.parametrize("hard", [False, True])
def test_the_tokens_head_trains(variables, hard):
    wrapper = vix.DistillWrapper(student=STUDENT, teacher=teacher, hard=hard, alpha=1.0)
    grads = jax.jit(jax.grad(lambda v: wrapper.apply(v, IMG, LABELS)))(variables)["params"]
    assert np.abs(grads["distill_mlp"]["kernel"]).max() > 0
    assert np.abs(grads["distillation_token"]).max() > 0
    assert np.abs(grads["student"]["pos_embedding"]).max() > 0
    # All of the loss is the teacher's: the student's own head hears nothing.
    assert not np.any(grads["student"]["head"]["dense"]["kernel"])


def test_alpha_is_the_teachers_share(variables):
    @partial(jax.jit, static_argnums=(0, 1))
    def loss(share, alpha=None):
        wrapper = vix.DistillWrapper(student=STUDENT, teacher=teacher, alpha=share)
        return wrapper.apply(variables, IMG, LABELS, alpha=alpha)

    np.testing.assert_allclose(loss(0.3), 0.7 * loss(0.0) + 0.3 * loss(1.0), rtol=1e-5)
    np.testing.assert_allclose(loss(0.3, 1.0), loss(1.0), rtol=1e-6)
    token = variables["params"]["distillation_token"]
    inner = {"params": variables["params"]["student"]}
    logits, _ = STUDENT.apply(inner, IMG, token)
    plain = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()
    np.testing.assert_allclose(loss(0.0), plain, rtol=1e-6)


def test_no_gradient_goes_into_the_teacher(variables):
    def loss(scale):
        wrapper = vix.DistillWrapper(student=STUDENT)
        return wrapper.apply(variables, IMG, LABELS, teacher_logits=scale * teacher(IMG))

    assert jax.jit(jax.grad(loss))(1.0) == 0


def test_the_student_is_the_plain_model(variables):
    wrapper = vix.DistillWrapper(student=STUDENT, teacher=teacher)
    model, inner = wrapper.to_vit(variables)
    assert model == vix.DualNormViT(**SIZES)
    assert vix.count_params(inner) == vix.count_params(
        jax.eval_shape(model.init, jax.random.key(0), IMG)
    )
    np.testing.assert_array_equal(model.apply(inner, IMG), STUDENT.apply(inner, IMG))


@pytest.mark.parametrize(
    "student",
    [
        vix.DistillableT2TViT(
            image_size=8, num_classes=3, dim=8, depth=1, heads=2, dim_head=4, mlp_dim=8,
            t2t_layers=((3, 2), (3, 2)),
        ),
        vix.DistillableEfficientViT(
            image_size=8, patch_size=4, num_classes=3, dim=8,
            transformer=vix.Transformer(dim=8, depth=1, heads=2, dim_head=4, mlp_dim=8),
        ),
    ],
)  # fmt: skip
def test_other_students(student):
    wrapper = vix.DistillWrapper(student=student, teacher=teacher)
    out, variables = jax.eval_shape(wrapper.init_with_output, jax.random.key(0), IMG, LABELS)
    assert out.shape == ()
    assert jax.eval_shape(student.to_vit().apply, {"params": variables["params"]["student"]},
                          IMG).shape == (4, 3)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(student=vix.DualNormViT(**SIZES)), "DualNormViT takes no distillation token"),
        (dict(temperature=0), "temperature=0 must be positive"),
        (dict(alpha=1.5), "alpha=1.5 must be from 0 to 1"),
    ],
)
def test_what_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        vix.DistillWrapper(**{"student": STUDENT, **fields})


def test_a_teacher_is_needed():
    with pytest.raises(ValueError, match="give a teacher to the wrapper, or teacher_logits"):
        jax.eval_shape(vix.DistillWrapper(student=STUDENT).init, jax.random.key(0), IMG, LABELS)
