"""One run, from where its folder stands to its end: what is trained, where, and saved when."""

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from vix_flax.data import Dataset, TrainBatches
from vix_flax.inspect import count_params
from vix_flax.preflight import GIB, bytes_needed
from vix_flax.processes import is_first, stop_together, together
from vix_flax.run_folder import CHECKPOINT, METRICS, TEST, write_aside
from vix_flax.task import Task
from vix_flax.training import TrainConfig, fit
from vix_flax.training.checkpoint import Checkpoints
from vix_flax.training.loop import each_step, require_finite
from vix_flax.training.mesh import batch_sharding, put_batch, put_whole, state_shardings
from vix_flax.training.plots import plot_confusion, plot_curves
from vix_flax.training.programs import StepPrograms
from vix_flax.training.state import StateProgram


@dataclass(frozen=True)
class Started:
    """What is known before the first step.

    Attributes:
        folder: the run's.
        model: what is trained.
        params: how many parameters it has.
        steps: in an epoch.
        done: steps that were taken before the run was stopped; 0: it is new.
        loader: where training images are.
        mesh: the devices.
    """

    folder: Path
    model: nn.Module
    params: int
    steps: int
    done: int
    loader: str
    mesh: Mesh


@dataclass(frozen=True)
class Result:
    """What a finished training run has to report."""

    folder: Path
    params: int
    val: dict[str, Any]
    test: dict[str, Any]
    seconds: float


class Stopped(Exception):
    """Training was asked to stop, and all that it needs to go on is in `folder`."""

    def __init__(self, folder: Path, step: int):
        super().__init__(f"stopped after step {step}")
        self.folder, self.step = folder, step


@dataclass(frozen=True)
class Hooks:
    """What others want to know or to say while a run goes on.

    Attributes:
        on_start: called before the first step.
        on_step: called whenever steps are dispatched, with their number.
        on_epoch: called with each row of metrics.
        stop: asked as often; if it says so, a checkpoint is written and training stops.
    """

    on_start: Callable[[Started], Any] = lambda started: None
    on_step: Callable[[int], Any] = lambda steps: None
    on_epoch: Callable[[dict[str, float]], Any] = lambda row: None
    stop: Callable[[], bool] = lambda: False


@dataclass
class Trainer:
    """A config with all that was made of it, not yet in any folder."""

    config: TrainConfig
    data: Dataset
    model: nn.Module
    task: Task
    tx: Any
    schedule: Callable[[int], Any]
    batches: TrainBatches
    mesh: Mesh

    @cached_property
    def fresh_state(self) -> StateProgram:
        """Called, it gives the state before the first step."""
        task, config = self.task, self.config
        given = (task.module, task.inputs, self.tx, config.seed, config.model_ema, task.start)
        return StateProgram(*given, self.mesh)

    def bytes_needed(self) -> int:
        """Of a training step, on each device; compiles it and, beside it, what makes the state."""
        state = self.fresh_state.shapes
        with ThreadPoolExecutor(1) as beside:
            compiled = beside.submit(lambda: self.fresh_state.compiled)
            placed = lambda x, sharding: x.update(sharding=sharding)
            state = jax.tree.map(placed, state, state_shardings(state, self.mesh))
            batch = self.batches.shapes()
            for name, x in batch.items():
                resident = "index" in batch and name != "index"
                sharding = batch_sharding(name, x.ndim, self.mesh, resident)
                batch[name] = x.update(sharding=sharding)
            needed = bytes_needed(self.step.compiled(state, batch))
            compiled.result()
        return needed

    @cached_property
    def step(self) -> StepPrograms:
        """What is done with a batch."""
        task, config = self.task, self.config
        return StepPrograms(
            augment=task.augment,
            mix=task.mix,
            objective=task.objective,
            ema_decay=config.model_ema_decay,
            accumulate=config.grad_accum_steps,
            context=put_whole(task.context, self.mesh),
            mesh=self.mesh,
        )

    def run(self, folder: Path, hooks: Hooks) -> Result:
        """Trains in this folder to the end, from its newest checkpoint if there is one.

        Raises:
            ValueError, FloatingPointError, OSError, Stopped: as `launch.train`.
        """
        start = time.perf_counter()
        with Checkpoints(folder / CHECKPOINT, self.config.keep) as checkpoints:
            state, metrics = self.fresh_state(), Metrics()
            del self.fresh_state  # it is not run again
            with together():
                restored = checkpoints.restore(state)
            if restored:
                state, saved = restored
                metrics = Metrics(saved["rows"], saved["so_far"])
                self.batches.restore(saved["batches"])
            params = count_params(self.task.model_variables({"params": state.params}))
            if (folder / TEST).exists():
                if len(metrics.rows) < self.config.epochs:
                    raise ValueError(
                        f"{folder} is finished, but its last checkpoint is gone: choose another "
                        "--output to train it again"
                    )
                return _finished(folder, params, metrics.rows)
            if is_first():
                lines = [json.dumps(row) + "\n" for row in metrics.rows]
                write_aside(folder / METRICS, "".join(lines))
            done = int(state.step)
            loader, steps = self.batches.loader, self.batches.steps
            hooks.on_start(Started(folder, self.model, params, steps, done, loader, self.mesh))
            state = self.train(state, metrics, checkpoints, folder, hooks)
        return self.tested(state, folder, params, metrics.rows, time.perf_counter() - start)

    def train(self, state, metrics, checkpoints, folder, hooks):
        """The epochs that are left; gives the last state."""
        calls, stopping, task = 0, False, self.task

        def save(state, so_far=(), score=None):
            saved = {"rows": metrics.rows, "so_far": so_far, "batches": self.batches.state()}
            weights = task.model_variables(state.eval_variables)
            checkpoints.save(state, weights, saved, score)

        def after_step(state, epoch, rows):
            nonlocal calls, stopping
            hooks.on_step(np.size(rows[-1]["loss"]))
            stopping = stopping or stop_together(hooks.stop(), calls)
            calls += 1
            # What the epoch's last step leaves is saved with its validation.
            if not stopping or not self.batches.state()["step"]:
                return
            rows = each_step(rows)
            require_finite(rows, state)
            save(state, [{k: float(v) for k, v in row.items()} for row in rows])
            checkpoints.wait()
            raise Stopped(folder, int(state.step))

        epochs = fit(
            state,
            self.config.epochs,
            lambda epoch: (put_batch(batch, self.mesh) for batch in self.batches.epoch(epoch)),
            lambda variables: task.evaluate(variables, self.data.val),
            self.step,
            on_step=after_step,
            first_epoch=len(metrics.rows),
            so_far=[{k: np.float32(v) for k, v in row.items()} for row in metrics.so_far],
        )
        for state, row in epochs:
            row |= {"lr": float(self.schedule(row["step"] - 1)), "memory_gib": memory_gib()}
            metrics.rows.append(row)
            if is_first():
                with (folder / METRICS).open("a") as file:
                    file.write(json.dumps(row) + "\n")
            save(state, score=row.get("val_accuracy", -row["val_loss"]))
            hooks.on_epoch(row)
            if stopping and row["epoch"] < self.config.epochs:
                checkpoints.wait()
                raise Stopped(folder, row["step"])
        return state

    def tested(self, state, folder, params, rows, seconds) -> Result:
        """Looks at the test images, and leaves what is found in the folder."""
        test = self.task.evaluate(state.eval_variables, self.data.test)
        if is_first():
            title = f"{self.config.model} on {self.config.dataset}"
            plot_curves(folder / "curves.png", rows, title)
            if "confusion" in test:
                picture, accuracy = folder / "confusion.png", test["accuracy"]
                title = f"{title}: test accuracy {accuracy:.1%}"
                plot_confusion(picture, test["confusion"], self.data.classes, title)
            scalars = {f"test_{name}": value for name, value in test.items() if np.ndim(value) == 0}
            write_aside(folder / TEST, json.dumps({**scalars, "params": params}, indent=2) + "\n")
        return Result(folder, params, rows[-1], test, seconds)


@dataclass(frozen=True)
class Metrics:
    """The metrics of the epochs that are done, and of the steps of the one that is not."""

    rows: list[dict[str, float]] = field(default_factory=list)
    so_far: Sequence[dict[str, float]] = ()


def _finished(folder: Path, params: int, rows: Sequence[dict]) -> Result:
    """What a run that had come to its end before reported then."""
    saved = json.loads((folder / TEST).read_text())
    test = {name.removeprefix("test_"): value for name, value in saved.items()}
    return Result(folder, params, rows[-1], test, 0.0)


def memory_gib() -> float:
    """The most memory that was taken until now, in GiB: of a device, or of the process on a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
