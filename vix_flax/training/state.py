"""Everything a run needs to go on: parameters, other collections, optimizer state, rng and step."""

from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training import train_state
from jax.sharding import Mesh

from vix_flax.training.mesh import keep_cut, platform_of
from vix_flax.training.optimizer import evaluated_params

STATIC = (2, 3, 4, 5, 6)  # of `_create`'s arguments: all but the arrays
# Options for a program that runs once.
COMPILED_ONCE = {"cpu": {"xla_backend_optimization_level": 0}}


class TrainState(train_state.TrainState):
    """Flax's TrainState, plus what else these models have.

    Attributes:
        extra: the collections beside `params`: running statistics, Performer features.
        rng: the key that all randomness of training is folded from, with the step.
        ema: a moving average of the parameters, or None.
    """

    extra: dict[str, Any]
    rng: jax.Array
    ema: Any = None

    @property
    def eval_variables(self) -> dict[str, Any]:
        """What to evaluate: the averaged parameters where there are any."""
        params = evaluated_params(self.params, self.opt_state) if self.ema is None else self.ema
        return {"params": params, **self.extra}


def create_state(
    model: nn.Module,
    image: jax.Array | jax.ShapeDtypeStruct | tuple[jax.ShapeDtypeStruct, ...],
    tx: optax.GradientTransformation,
    seed: int = 0,
    ema: bool = False,
    variables: dict[str, Any] | None = None,
    mesh: Mesh | None = None,
) -> TrainState:
    """A fresh state: variables drawn from `seed`, jitted (un-jitted init takes seconds).

    Args:
        model: whose variables are trained.
        image: an example of the input, or several for a module that takes several.
        tx: the optimizer.
        seed: of the variables and of all randomness in training.
        ema: whether to keep a moving average of the parameters.
        variables: taken, as a copy, instead of drawn ones.
        mesh: where the state shall lie, cut by `state_shardings` as it is made.
    """
    return _create(*_arguments(model, image, tx, seed, ema, variables, mesh))


class StateProgram:
    """`create_state` of these arguments: traced at once, compiled when asked to, run when called.

    It runs once, so that XLA's CPU compiler is told to hurry. That takes half the time; the last
    bits of what is drawn may differ from those that `create_state` draws. When the object is gone,
    so is the program: tens of megabytes, which `jax.jit` would keep.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        self._given = _arguments(*args, **kwargs)

        def create(*given):  # a function of its own: programs live as long as their function
            return _create.__wrapped__(*given)

        self._lowered = jax.jit(create, static_argnums=STATIC).lower(*self._given)

    @property
    def shapes(self) -> TrainState:
        """Of the state: a `jax.ShapeDtypeStruct` for each array."""
        return self._lowered.out_info

    @cached_property
    def compiled(self) -> jax.stages.Compiled:
        """The program; compiling takes seconds, the first time that it is asked for."""
        return self._lowered.compile(COMPILED_ONCE.get(platform_of(self._given[-1])))

    def __call__(self) -> TrainState:
        """The state."""
        seed, variables, *_ = self._given
        return self.compiled(seed, variables)


def _arguments(model, image, tx, seed=0, ema=False, variables=None, mesh=None) -> tuple:
    """Of `_create`, for those of `create_state`."""
    examples = image if isinstance(image, tuple) else (image,)
    shapes = tuple((tuple(example.shape), example.dtype) for example in examples)
    if variables is not None and mesh is not None:
        variables = jax.device_get(variables)  # they may lie on one device alone
    return np.uint32(seed), variables, model, tx, ema, shapes, mesh


@partial(jax.jit, static_argnums=STATIC)
def _create(seed, variables, model, tx, ema, shapes, mesh):
    params_key, features_key, rng = jax.random.split(jax.random.key(seed), 3)
    if variables is None:
        rngs = {"params": params_key, "features": features_key}
        variables = model.init(rngs, *(jnp.zeros(shape, dtype) for shape, dtype in shapes))
    variables = dict(variables)
    params = variables.pop("params")
    # A copy: a donated state must not hold one buffer twice.
    average = jax.tree.map(jnp.copy, params) if ema else None
    state = TrainState.create(
        apply_fn=model.apply, params=params, tx=tx, extra=variables, rng=rng, ema=average
    )
    # An array like any other: as Python's 0 it would make another program than a restored one.
    state = state.replace(step=jnp.zeros((), jnp.int32))
    return keep_cut(state, mesh)
