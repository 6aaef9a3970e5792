"""Cross-entropy against values worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from vix_flax.training import cross_entropy

LOGITS = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]]))
LABELS = jnp.array([1, 0, 1])


def test_without_smoothing_it_is_minus_the_log_of_the_labels_share():
    loss = cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(loss, -np.log([0.75, 0.5, 0.1]), rtol=1e-6)


def test_smoothing_spreads_over_all_classes():
    # 0.2 over two classes: 0.9 on the label, 0.1 on the other.
    expected = [-0.9 * np.log(0.75) - 0.1 * np.log(0.25), np.log(2)]
    loss = cross_entropy(LOGITS[:2], LABELS[:2], smoothing=0.2)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equal_logits_cost_the_log_of_the_number_of_classes(smoothing):
    loss = cross_entropy(jnp.full((4, 10), 3.0), jnp.arange(4), smoothing)
    np.testing.assert_allclose(loss, np.log(10), rtol=1e-6)


def test_adding_a_constant_to_the_logits_changes_nothing():
    loss = cross_entropy(LOGITS + 50, LABELS, 0.1)
    np.testing.assert_allclose(loss, cross_entropy(LOGITS, LABELS, 0.1), rtol=1e-4)


def test_huge_logits_stay_finite():
    loss = cross_entropy(jnp.array([[1e4, -1e4]]), jnp.array([1]))
    np.testing.assert_allclose(loss, 2e4)


def test_half_precision_logits_give_a_float32_loss():
    loss = cross_entropy(LOGITS.astype(jnp.bfloat16), LABELS)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, cross_entropy(LOGITS, LABELS), rtol=2e-2)
