"""Training is a `for` loop: paste it into a notebook and change what you like."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vix_flax.training.objective import OwnLoss
from vix_flax.training.state import TrainState
from vix_flax.training.step import eval_step, own_loss_step

LAG = 8  # steps after which a step's metrics are looked at
Batches = Iterable[dict[str, np.ndarray]]
Step = Callable[[TrainState, dict], tuple[TrainState, dict]]


def evaluate(
    variables: dict,
    batches: Batches,
    apply_fn: Callable,
    augment: Callable,
    mesh: Mesh | None = None,
) -> dict:
    """Mean `loss` (nats), `accuracy`, `top5` (the label is among the five most probable classes)
    and `confusion (classes, classes)`; each image counts once.
    """
    given = dict(apply_fn=apply_fn, augment=augment, mesh=mesh)
    sums = [eval_step(variables, batch, **given) for batch in batches]
    total = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *jax.device_get(sums))
    return {
        "loss": float(total["loss"] / total["count"]),
        "accuracy": float(total["correct"] / total["count"]),
        "top5": float(total["in_top5"] / total["count"]),
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
    step: Step,
    on_step: Callable[[TrainState, int, list[dict]], Any] = lambda *_: None,
    first_epoch: int = 0,
    so_far: Sequence[dict] = (),
) -> Iterator[tuple[TrainState, dict[str, float]]]:
    """Yields the state and a row of metrics after every epoch.

    Args:
        state: is donated to the first step.
        epochs: how many.
        train_batches: epoch → its batches.
        validate: variables → metrics, after every epoch; scalars go into its row.
        step: what is done with a batch: `partial(train_step, augment=…)`, or `StepPrograms(…)`.
        on_step: called whenever a step, or several at once, are dispatched, with the state, the
            epoch, and the epoch's metrics so far: scalars, or arrays of several steps.
        first_epoch, so_far: where to go on: the epoch, and the metrics of its steps until now.

    Raises:
        FloatingPointError: a loss or a gradient is not finite; names the step and the parameter.
    """
    for epoch in range(first_epoch, epochs):
        start, rows, images = time.perf_counter(), list(so_far), 0
        so_far = ()
        for batch in train_batches(epoch):
            state, metrics = step(state, batch)
            rows.append(metrics)
            images += batch.get("index", batch["label"]).size
            if len(rows) >= LAG:  # done by now: looking at it stalls nothing
                steps_ago = sum(np.size(row["loss"]) for row in rows[1 - LAG :])
                require_finite(each_step([rows[-LAG]]), state, steps_ago)
            on_step(state, epoch, rows)
        rows = each_step(rows)
        require_finite(rows, state)
        names = rows[0].keys() - {"not_finite"}
        train = {name: float(np.mean([row[name] for row in rows])) for name in sorted(names)}
        seconds = time.perf_counter() - start
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


def each_step(rows: Sequence[dict]) -> list[dict[str, np.ndarray]]:
    """Metrics of single steps, on the host, from those that may be of several at once."""
    rows = [{k: np.atleast_1d(v) for k, v in row.items()} for row in jax.device_get(list(rows))]
    return [{k: v[i] for k, v in row.items()} for row in rows for i in range(len(row["loss"]))]


def require_finite(rows: Sequence[dict], state: TrainState, steps_ago: int = 0) -> None:
    """Raises FloatingPointError at the first row whose loss or gradient is not finite.

    Args:
        rows: metrics of steps in order, the last of them taken `steps_ago`.
        state: after the last step.
        steps_ago: how many steps there were after the last row.
    """
    for i, metrics in enumerate(rows):
        loss, which = float(metrics["loss"]), int(metrics["not_finite"])
        if np.isfinite(loss) and which < 0:
            continue
        step = int(state.step) - steps_ago - (len(rows) - 1 - i)
        where = ""
        if which >= 0:
            paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(state.params)]
            name = jax.tree_util.keystr(paths[which], simple=True, separator="/")
            where = f", and the first gradient that is not finite is that of {name}"
        raise FloatingPointError(
            f"step {step}: the loss is {loss}{where}; try a lower lr or clip_grad=1"
        )
