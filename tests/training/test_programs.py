"""Steps compiled ahead are the steps of `train_step`; no array is larger than a block of memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import serialize_executable
from tiny_models import images, tiny

from vix_flax.data import Augment
from vix_flax.training import StepPrograms, create_state, programs, train_step

AUGMENT = Augment((0.3, 0.3), (0.4, 0.4))
MODELS = ["fnet2d", "cvt_cifar"]
MORE = ["levit_cifar", "vin", "vip", "cait_cifar", "crossformer", "pit"]


def prepared(name, **fields):
    model = tiny(name, **fields)
    image = images(model)[:1]
    batch = {"image": np.zeros((4, *image.shape[1:]), np.uint8), "label": np.arange(4)}
    return (lambda: create_state(model, image, optax.adam(1e-3))), batch


def test_they_are_train_steps_one_program_for_each_shape():
    fresh, batch = prepared("fnet2d", dropout=0.0)
    step = StepPrograms(augment=AUGMENT, context=None)
    half = {name: x[:2] for name, x in batch.items()}
    state, expected = fresh(), fresh()
    for given in (batch, half, batch):
        state, metrics = step(state, given)
        expected, wanted = train_step(expected, given, augment=AUGMENT)
        for a, b in zip(jax.tree.leaves(metrics), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    shapes = jax.eval_shape(lambda: state)
    assert step.compiled(shapes, batch) is step.compiled(state, dict(reversed(batch.items())))
    assert step.compiled(shapes, half) is not step.compiled(shapes, batch)


@pytest.fixture
def told(monkeypatch):
    """What malloc would be told."""
    calls = []
    monkeypatch.setattr(programs, "keep_freed_blocks", lambda: calls.append("keep"))
    monkeypatch.setattr(programs, "give_back_freed_memory", lambda: calls.append("give back"))
    return calls


@pytest.mark.parametrize(
    "name", [*MODELS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_every_array_has_room_in_a_block_that_malloc_keeps(name, told, monkeypatch, capfd):
    monkeypatch.setattr(programs, "MANY_BYTES", {jax.default_backend(): 1})
    monkeypatch.setattr(programs, "BLOCK_BYTES", 1)
    fresh, batch = prepared(name)
    compiled = StepPrograms(augment=AUGMENT).compiled(jax.eval_shape(fresh), batch)
    assert "limit" not in capfd.readouterr().err  # as XLA says of an array that has none
    with pytest.raises(Exception, match="Multiple temp buffer allocations"):  # they are in blocks
        serialize_executable.serialize(compiled)
    assert told == ["keep"]


def test_xla_says_so_of_an_array_without_room(capfd):
    lowered = jax.jit(lambda x: jnp.sin(x @ x) @ x).lower(jnp.ones((64, 64)))
    lowered.compile({"xla_multiheap_size_constraint_per_heap": 64})
    assert "larger than the per-heap size limit" in capfd.readouterr().err


def test_the_other_order_of_work_needs_less(monkeypatch):
    fresh, batch = prepared("cvt_cifar")
    shapes = jax.eval_shape(fresh)
    needed = []
    for many in (2**40, 1):
        monkeypatch.setattr(programs, "MANY_BYTES", {jax.default_backend(): many})
        compiled = StepPrograms(augment=AUGMENT).compiled(shapes, batch)
        needed.append(compiled.memory_analysis().temp_size_in_bytes)
    assert needed[1] < needed[0]


@pytest.mark.parametrize("many", [{}, {"cpu": 2**30}])
def test_elsewhere_and_for_little_there_are_no_blocks(many, told, monkeypatch):
    monkeypatch.setattr(programs, "MANY_BYTES", many)
    fresh, batch = prepared("fnet2d")
    compiled = StepPrograms(augment=AUGMENT).compiled(jax.eval_shape(fresh), batch)
    assert serialize_executable.serialize(compiled)
    assert told == ["give back"]
