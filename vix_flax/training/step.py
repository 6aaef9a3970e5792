"""One optimizer step and one evaluation step: pure functions, jitted, the old state donated."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vix_flax.training.loss import cross_entropy
from vix_flax.training.objective import Classify, OwnLoss
from vix_flax.training.state import TrainState

CLASSIFY = Classify()


@partial(
    jax.jit,
    static_argnames=("augment", "mix", "objective", "ema_decay"),
    donate_argnames=("state",),
)
def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    augment: Callable[[jax.Array, jax.Array | None], jax.Array],
    mix: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None = None,
    objective: Callable = CLASSIFY,
    ema_decay: float = 0.999,
    context: Any = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The next state, and `loss`, `grad_norm` and the objective's metrics of this step, as scalars.

    Args:
        state: is donated: use the returned one from then on.
        batch: `{"image": (b, h, w, c) uint8, "label": (b,) int32}`.
        augment: (images, key) → what the model sees; hashable.
        mix: (what the model sees, labels, key) → the same of mixed images, and soft labels.
        objective: what to make small, hashable; see `vix_flax.training.objective`.
        ema_decay: of the moving average, if the state has one; after t steps at most
            (1 + t) / (10 + t).
        context: arrays that the objective needs and nobody trains, such as a teacher's variables.
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(state.rng, state.step))
    images, labels = augment(batch["image"], augment_key), batch["label"]
    if mix is not None:
        images, labels = mix(images, labels, jax.random.fold_in(augment_key, 1))

    def loss_of(params):
        variables, rngs = {"params": params, **state.extra}, {"dropout": dropout_key}
        return objective(state.apply_fn, variables, images, labels, rngs, context)

    (loss, (metrics, updates)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    metrics = {"loss": loss, **metrics, "grad_norm": optax.tree.norm(grads)}
    state = state.apply_gradients(grads=grads, extra={**state.extra, **updates})
    if state.ema is not None:
        # Early on the average follows closely: it must not remember how training began.
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        state = state.replace(ema=optax.incremental_update(state.params, state.ema, 1 - decay))
    return state, metrics


@partial(jax.jit, static_argnames=("apply_fn", "augment"))
def eval_step(
    variables: dict,
    batch: dict[str, jax.Array],
    *,
    apply_fn: Callable,
    augment: Callable[[jax.Array], jax.Array],
) -> dict[str, jax.Array]:
    """Sums over the batch's real images: `loss`, `correct`, `count`; and `confusion (classes,
    classes)`, how many of each true class (row) were taken for which (column).

    Args:
        variables: as `init` returns them.
        batch: as for `train_step`, with `mask` (b,) that is 0 for padding.
        apply_fn: the model's `apply`.
        augment: called without a key: it only normalises.
    """
    logits = apply_fn(variables, augment(batch["image"]))
    predicted = logits.argmax(axis=-1)
    label, mask = batch["label"], batch["mask"]
    classes = logits.shape[-1]
    return {
        "loss": (cross_entropy(logits, label) * mask).sum(),
        "correct": ((predicted == label) * mask).sum(),
        "count": mask.sum(),
        "confusion": jnp.zeros((classes, classes)).at[label, predicted].add(mask),
    }


@partial(jax.jit, static_argnames=("apply_fn", "augment", "objective"))
def own_loss_step(
    variables: dict,
    images: jax.Array,
    *,
    apply_fn: Callable,
    augment: Callable[[jax.Array], jax.Array],
    objective: OwnLoss,
) -> jax.Array:
    """The mean loss over images `(b, h, w, c)` uint8, for a module that has one of its own."""
    return objective.evaluate(apply_fn, variables, augment(images))
