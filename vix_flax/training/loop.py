"""Training is a `for` loop: paste it into a notebook and change what you like."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from vix_flax.training.objective import OwnLoss
from vix_flax.training.state import TrainState
from vix_flax.training.step import CLASSIFY, eval_step, own_loss_step, train_step

Batches = Iterable[dict[str, np.ndarray]]


def evaluate(variables: dict, batches: Batches, apply_fn: Callable, augment: Callable) -> dict:
    """Mean `loss` (nats), `accuracy` and `confusion (classes, classes)`; each image counts once."""
    sums = [eval_step(variables, batch, apply_fn=apply_fn, augment=augment) for batch in batches]
    total = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *jax.device_get(sums))
    return {
        "loss": float(total["loss"] / total["count"]),
        "accuracy": float(total["correct"] / total["count"]),
        "confusion": total["confusion"].astype(int),
    }


def evaluate_own_loss(
    variables: dict, batches: Batches, apply_fn: Callable, augment: Callable, objective: OwnLoss
) -> dict:
    """Mean `loss` of a module that has one of its own; each image counts once."""
    loss, count = 0.0, 0
    for batch in batches:
        images = batch["image"][batch["mask"] > 0]  # padding would count in the batch's mean
        mean = own_loss_step(
            variables, images, apply_fn=apply_fn, augment=augment, objective=objective
        )
        loss, count = loss + float(mean) * len(images), count + len(images)
    return {"loss": loss / count}


def fit(
    state: TrainState,
    epochs: int,
    train_batches: Callable[[int], Batches],
    validate: Callable[[dict], dict],
    augment: Callable,
    mix: Callable | None = None,
    objective: Callable = CLASSIFY,
    ema_decay: float = 0.999,
    context: Any = None,
    on_step: Callable[[], Any] = lambda: None,
) -> Iterator[tuple[TrainState, dict[str, float]]]:
    """Yields the state and a row of metrics after every epoch.

    Args:
        state: is donated to the first step.
        epochs: how many.
        train_batches: epoch → its batches.
        validate: variables → metrics, after every epoch; scalars go into its row.
        augment, mix, objective, ema_decay, context: as in `train_step`.
        on_step: called after every step is dispatched.

    Raises:
        FloatingPointError: the mean loss of an epoch is not finite.
    """
    for epoch in range(epochs):
        start, rows, images = time.perf_counter(), [], 0
        for batch in train_batches(epoch):
            state, metrics = train_step(
                state,
                batch,
                augment=augment,
                mix=mix,
                objective=objective,
                ema_decay=ema_decay,
                context=context,
            )
            rows.append(metrics)
            images += len(batch["label"])
            on_step()
        rows = jax.device_get(rows)
        train = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        seconds = time.perf_counter() - start
        if not np.isfinite(train["loss"]):
            raise FloatingPointError(
                f"the loss is {train['loss']} in epoch {epoch + 1}: try a lower lr or clip_grad=1"
            )
        grad_norm = train.pop("grad_norm")
        val = validate(state.eval_variables)
        yield (
            state,
            {
                "epoch": epoch + 1,
                "step": int(state.step),
                **{f"train_{name}": value for name, value in train.items()},
                "grad_norm": grad_norm,
                **{f"val_{name}": value for name, value in val.items() if np.ndim(value) == 0},
                "seconds": seconds,
                "images_per_second": images / seconds,
            },
        )
