"""One optimizer step and one evaluation step: pure functions, jitted, the old state donated."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vix_flax.training.blocks_once import blocks_traced_once
from vix_flax.training.data_parallel import (
    gradient_with_norms,
    many_copies,
    on_each_device,
)
from vix_flax.training.loss import cross_entropy
from vix_flax.training.mesh import keep_cut, keep_whole, platform_of
from vix_flax.training.objective import Classify, OwnLoss
from vix_flax.training.parts import (
    gradient_in_cache,
    gradient_in_parts,
    gradient_of,
    mean_of_images,
)
from vix_flax.training.state import TrainState

CLASSIFY = Classify()


@partial(
    jax.jit,
    static_argnames=("augment", "mix", "objective", "ema_decay", "accumulate", "mesh"),
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
    accumulate: int = 1,
    context: Any = None,
    mesh: Mesh | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The next state and this step's metrics, scalars: `loss`, the objective's, `grad_norm`, and
    `not_finite`, which of the parameters is the first whose gradient is not finite (-1: none).

    Args:
        state: is donated: use the returned one from then on.
        batch: `{"image": (b, h, w, c) uint8, "label": (b,) int32}`; or a whole set on the device,
            with the batch's rows in `"index"` (b,) int32. With `"index"` (steps, b) several steps
            are taken, and metrics are `(steps,)`: small models would wait for the host.
        augment: (images, key) → what the model sees; hashable.
        mix: (what the model sees, labels, key) → the same of mixed images, and soft labels.
        objective: what to make small, hashable; see `vix_flax.training.objective`.
        ema_decay: of the moving average, if the state has one; after t steps at most
            (1 + t) / (10 + t).
        accumulate: parts that the batch is worked through in, one after the other, to save memory;
            the gradient is that of the whole, but BatchNorm sees a part at a time. On a CPU there
            are more, where that changes nothing but time and what dropout draws; see
            `vix_flax.training.parts`, and `vix_flax.training.data_parallel` for many devices.
        context: arrays that the objective needs and nobody trains, such as a teacher's variables.
        mesh: where state and batch lie, if on many devices; see `vix_flax.training.mesh`.
    """
    learn = partial(
        _learn,
        augment=augment,
        mix=mix,
        objective=objective,
        ema_decay=ema_decay,
        accumulate=accumulate,
        context=context,
        mesh=mesh,
    )
    if "index" not in batch:
        state, metrics = learn(state, batch["image"], batch["label"])
    elif batch["index"].ndim == 1:
        state, metrics = learn(state, *_rows(batch, batch["index"]))
    else:
        step = lambda state, index: learn(state, *_rows(batch, index))
        state, metrics = jax.lax.scan(step, state, batch["index"])
    return keep_cut(state, mesh), keep_whole(metrics, mesh)


def _rows(batch, index):
    return batch["image"][index], batch["label"][index]


def _learn(state, images, labels, *, augment, mix, objective, ema_decay, accumulate, context, mesh):
    """One step on one batch; see `train_step`."""
    keys = jax.random.split(jax.random.fold_in(state.rng, state.step), 3)
    augment_key, dropout_key, mix_key = keys
    images = augment(images, augment_key)
    if mix is not None:
        images, labels = mix(images, labels, mix_key)

    def loss_of(params, extra, images, labels, dropout_key, context):
        rngs = {"dropout": dropout_key}
        return objective(state.apply_fn, {"params": params, **extra}, images, labels, rngs, context)

    gradient = gradient_in_parts(gradient_of(loss_of), accumulate)
    if platform_of(mesh) == "cpu" and mean_of_images(state.apply_fn, objective):
        copies = many_copies(mesh)
        if "batch_stats" not in state.extra:
            devices = 1 if mesh is None else mesh.size
            each = partial(on_each_device, mesh=mesh) if copies else None
            gradient = gradient_in_cache(loss_of, accumulate, devices, each)
        elif copies and accumulate == 1:
            gradient = gradient_with_norms(loss_of, mesh)
    given = (state.params, state.extra, images, labels, dropout_key, context)
    (grads, metrics), extra = gradient(*given)
    loss = metrics.pop("loss")
    squares = jnp.stack([jnp.square(leaf).sum() for leaf in jax.tree.leaves(grads)])
    bad = ~jnp.isfinite(squares)
    metrics = {
        "loss": loss,
        **metrics,
        "grad_norm": jnp.sqrt(squares.sum()),
        "not_finite": jnp.where(bad.any(), bad.argmax(), -1),
    }
    state = state.apply_gradients(grads=grads, extra=extra)
    if state.ema is not None:
        # Early on the average follows closely: it must not remember how training began.
        decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
        state = state.replace(ema=optax.incremental_update(state.params, state.ema, 1 - decay))
    return state, metrics


@partial(jax.jit, static_argnames=("apply_fn", "augment", "mesh"))
def eval_step(
    variables: dict,
    batch: dict[str, jax.Array],
    *,
    apply_fn: Callable,
    augment: Callable[[jax.Array], jax.Array],
    mesh: Mesh | None = None,
) -> dict[str, jax.Array]:
    """Sums over the batch's real images: `loss`, `correct`, `in_top5`, `count`; and `confusion
    (classes, classes)`, how many of each true class (row) were taken for which (column).

    Args:
        variables: as `init` returns them.
        batch: as for `train_step`, with `mask` (b,) that is 0 for padding.
        apply_fn: the model's `apply`.
        augment: called without a key: it only normalises.
        mesh: as for `train_step`.
    """
    with blocks_traced_once():
        logits = apply_fn(variables, augment(batch["image"]))
    predicted = logits.argmax(axis=-1)
    label, mask = batch["label"], batch["mask"]
    classes = logits.shape[-1]
    _, best = jax.lax.top_k(logits, min(5, classes))
    finite = jnp.isfinite(logits).all(axis=1)
    sums = {
        "loss": (cross_entropy(logits, label) * mask).sum(),
        "correct": ((predicted == label) * mask).sum(),
        "in_top5": ((best == label[:, None]).any(axis=1) * finite * mask).sum(),
        "count": mask.sum(),
        "confusion": jnp.zeros((classes, classes)).at[label, predicted].add(mask),
    }
    return keep_whole(sums, mesh)


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
