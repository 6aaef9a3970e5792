"""Everything a run needs to go on: parameters, other collections, optimizer state, rng and step."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training import train_state

from vix_flax.training.optimizer import evaluated_params


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
) -> TrainState:
    """A fresh state: variables drawn from `seed`, jitted (un-jitted init takes seconds).

    `image` is an example of the input, or several for a module that takes several. `variables`,
    where they are given, are taken instead of drawn ones; the state has a copy of them.
    """
    params_key, features_key, rng = jax.random.split(jax.random.key(seed), 3)
    rngs = {"params": params_key, "features": features_key}
    examples = image if isinstance(image, tuple) else (image,)
    inputs = tuple(jnp.zeros(example.shape, example.dtype) for example in examples)
    return _create(model, tx, ema, rngs, rng, inputs, variables)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _create(model, tx, ema, rngs, rng, inputs, variables):
    variables = dict(model.init(rngs, *inputs) if variables is None else variables)
    params = variables.pop("params")
    # A copy: a donated state must not hold one buffer twice.
    average = jax.tree.map(jnp.copy, params) if ema else None
    return TrainState.create(
        apply_fn=model.apply, params=params, tx=tx, extra=variables, rng=rng, ema=average
    )
