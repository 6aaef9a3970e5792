"""A fresh state: fixed by its seed, complete, with an average that is its own."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from vix_flax.training import create_state, make_optimizer, make_schedule
from vix_flax.training.state import StateProgram

IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 1), "float32")
TX = make_optimizer("adamw", make_schedule("constant", 1e-3, 10), 0.01)


class Toy(nn.Module):
    """Has parameters, and features from a stream of their own as the Performer has."""

    @nn.compact
    def __call__(self, x, *, train=False):
        draw = lambda: jax.random.uniform(self.make_rng("features"), (16, 3))
        features = self.variable("features", "projection", draw).value
        uniform = nn.initializers.uniform()
        return nn.Dense(10, kernel_init=uniform)(x.reshape(len(x), -1)[:, :16] @ features)


MODEL = Toy()


@pytest.fixture(scope="module")
def state():
    return create_state(MODEL, IMAGE, TX, seed=0, ema=True)


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_it_starts_at_step_0_with_a_key_for_training(state):
    assert state.step == 0
    assert jax.numpy.issubdtype(state.rng.dtype, jax.dtypes.prng_key)


def test_the_seed_fixes_all_of_it(state):
    again = create_state(MODEL, IMAGE, TX, seed=0, ema=True)
    assert equal((state.params, state.extra, state.ema), (again.params, again.extra, again.ema))
    assert state.rng == again.rng


def test_another_seed_gives_other_parameters_features_and_key(state):
    other = create_state(MODEL, IMAGE, TX, seed=1)
    kernel = lambda s: s.params["Dense_0"]["kernel"]
    assert not equal(kernel(state), kernel(other))
    assert not equal(state.extra["features"], other.extra["features"])
    assert state.rng != other.rng


def test_collections_beside_the_parameters_are_kept_apart(state):
    assert "params" not in state.extra
    assert state.extra.keys() == {"features"}


def test_the_average_starts_as_a_copy_of_the_parameters(state):
    assert equal(state.ema, state.params)
    pointers = lambda tree: {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)}
    assert not pointers(state.ema) & pointers(state.params)


def test_evaluation_uses_the_average_where_there_is_one(state):
    assert state.eval_variables["params"] is state.ema
    assert state.replace(ema=None).eval_variables["params"] is state.params
    assert state.eval_variables["features"] is state.extra["features"]


def test_the_variables_are_those_of_the_model(state):
    abstract = jax.eval_shape(MODEL.init, jax.random.key(0), IMAGE)
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert shapes(state.eval_variables) == shapes(abstract)


def test_a_program_gives_the_same_state_and_its_shapes_without_being_compiled(state):
    program = StateProgram(MODEL, IMAGE, TX, seed=0, ema=True)
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
    assert shapes(program.shapes) == shapes(state)
    made = program()
    assert made.rng == state.rng
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    given = lambda s: (s.step, s.params, s.extra, s.opt_state, s.ema)
    jax.tree.map(close, given(made), given(state))
