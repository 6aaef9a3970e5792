"""Training is a `for` loop: paste it into a notebook and change what you like."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from vix_flax.training.state import TrainState
from vix_flax.training.step import CLASSIFY, eval_step, train_step

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


def fit(
    state: TrainState,
    epochs: int,
    train_batches: Callable[[int], Batches],
    val_batches: Callable[[], Batches],
    augment: Callable,
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
        val_batches: → the validation batches.
        augment, objective, ema_decay, context: as in `train_step`.
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
        val = evaluate(state.eval_variables, val_batches(), state.apply_fn, augment)
        yield (
            state,
            {
                "epoch": epoch + 1,
                "step": int(state.step),
                "train_loss": train["loss"],
                "train_accuracy": train["accuracy"],
                "grad_norm": train["grad_norm"],
                "val_loss": val["loss"],
                "val_accuracy": val["accuracy"],
                "seconds": seconds,
                "images_per_second": images / seconds,
            },
        )
