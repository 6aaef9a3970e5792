"""From a config to a run's folder: check everything, then train, evaluate once, draw pictures.

A run that was stopped goes on from its newest checkpoint, as if it had never been.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

import vix_flax
from vix_flax.data import Dataset, TrainBatches, choose_loader
from vix_flax.inspect import count_params
from vix_flax.layers import field_names
from vix_flax.presets import PRESETS, create_model
from vix_flax.run import dataset_of
from vix_flax.run_folder import CHECKPOINT, CONFIG, METRICS, TEST, opened, settle, write_aside
from vix_flax.task import Task, make_task
from vix_flax.training import TrainConfig, create_state, fit, make_optimizer, make_schedule
from vix_flax.training.checkpoint import Checkpoints, whole_steps
from vix_flax.training.loop import require_finite
from vix_flax.training.plots import plot_confusion, plot_curves


def resolve(config: TrainConfig, data: Dataset) -> tuple[TrainConfig, nn.Module]:
    """The config with every field of the model that the data set decides filled in, and the model.

    Raises:
        ValueError: the model cannot be built from these fields.
    """
    if config.model not in PRESETS:
        create_model(config.model)  # says what would do
    height, width, channels = data.image_shape
    decided = {
        "image_size": (height, width),
        "channels": channels,
        "num_classes": len(data.classes),
    }
    known = field_names(PRESETS[config.model][0])
    fields = {name: value for name, value in decided.items() if name in known}
    config = dataclasses.replace(config, model_fields={**fields, **config.model_fields})
    model = create_model(config.model, **config.model_fields)
    # Shapes alone: whatever does not fit together is found before anything is written or compiled.
    image = jax.ShapeDtypeStruct((1, *data.image_shape), "float32")
    try:
        logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    except TypeError as error:  # such as a dtype that there is not
        raise ValueError(f"{config.model} cannot be built: {error}") from error
    if isinstance(logits, tuple):
        raise ValueError("num_distill_classes gives a second head, which vix train does not train")
    if logits.shape[-1] != len(data.classes):
        raise ValueError(
            f"num_classes={logits.shape[-1]} does not fit {data.name}: it has {len(data.classes)}"
        )
    return config, model


def new_folder(output: str | Path, name: str) -> Path:
    """A new folder `output/DATE-name`, numbered if there is one; no run's folder is used twice.

    Raises:
        ValueError: it cannot be created.
    """
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    for attempt in range(1000):
        folder = Path(output) / (f"{stem}-{attempt}" if attempt else stem)
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not Path(output).is_dir():
                raise ValueError(f"output={str(output)!r} is a file, not a folder") from None
        except OSError as error:
            raise ValueError(
                f"output={str(output)!r} cannot be written: {error.strerror}"
            ) from None
    raise ValueError(f"output={str(output)!r} is full of runs named {stem}")


@dataclasses.dataclass(frozen=True)
class Started:
    """What is known before the first step.

    Attributes:
        folder: the run's.
        model: what is trained.
        params: how many parameters it has.
        steps: in an epoch.
        done: steps that were taken before the run was stopped; 0: it is new.
        loader: where training images are.
    """

    folder: Path
    model: nn.Module
    params: int
    steps: int
    done: int
    loader: str


@dataclasses.dataclass(frozen=True)
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


def train(
    config: TrainConfig,
    output: str | Path | None = None,
    resume: bool = True,
    on_start: Callable[[Started], Any] = lambda started: None,
    on_step: Callable[[], Any] = lambda: None,
    on_epoch: Callable[[dict[str, float]], Any] = lambda row: None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Trains to the end, from the newest checkpoint if there is one.

    The test split is looked at once, at the end.

    Args:
        config: what to train; see `RECIPES` for good starts.
        output: the run's folder; None: a new one under `runs`.
        resume: go on with the run in `output`; False: refuse to.
        on_start: called before the first step.
        on_step: called after each step.
        on_epoch: called with each row of metrics.
        stop: asked after each step; if it says so, a checkpoint is written and training stops.

    Raises:
        ValueError: fields, data or folders that will not do, before anything is compiled; or a
            checkpoint that cannot be read.
        FloatingPointError: a loss or a gradient is no longer finite.
        OSError: a checkpoint cannot be written.
        Stopped: `stop` said so.
    """
    data = dataset_of(config)
    config, model = resolve(config, data)
    loader = config.loader or choose_loader(data.train)
    batches = TrainBatches(data.train, config.batch_size, config.seed, loader)
    if batches.batch_size % config.grad_accum_steps:
        raise ValueError(
            f"grad_accum_steps={config.grad_accum_steps} does not divide the batch of "
            f"{batches.batch_size} images"
        )
    schedule = make_schedule(
        config.sched,
        config.lr,
        config.epochs * batches.steps,
        round(config.warmup_epochs * batches.steps),
        config.min_lr,
    )
    tx = make_optimizer(config.opt, schedule, config.weight_decay, config.clip_grad)
    goes_on = bool(output) and bool(whole_steps(Path(output) / CHECKPOINT))
    task = make_task(config, model, data, fresh=not goes_on)
    saved = {
        "config": dataclasses.asdict(config),
        "classes": data.classes,
        "image_shape": data.image_shape,
        "mean": data.mean,
        "std": data.std,
        "versions": {m.__name__: m.__version__ for m in (vix_flax, jax)},
    }
    folder = Path(output) if output else new_folder("runs", f"{config.model}-{config.dataset}")
    with opened(folder):
        if not resume and (folder / CONFIG).exists():
            raise ValueError(f"{folder} holds a run already: choose another output, or go on")
        settle(folder, saved)
        run = _Training(config, data, model, task, tx, schedule, batches, folder)
        return run.to_the_end(on_start, on_step, on_epoch, stop)


@dataclasses.dataclass
class _Training:
    """One run in one process: from where its folder stands to its end."""

    config: TrainConfig
    data: Dataset
    model: nn.Module
    task: Task
    tx: Any
    schedule: Callable[[int], Any]
    batches: TrainBatches
    folder: Path

    def to_the_end(self, on_start, on_step, on_epoch, stop) -> Result:
        start, task, config, folder = time.perf_counter(), self.task, self.config, self.folder
        state = create_state(
            task.module, task.inputs, self.tx, config.seed, config.model_ema, task.start
        )
        params = count_params(task.model_variables({"params": state.params}))
        with Checkpoints(folder / CHECKPOINT, config.keep) as checkpoints:
            restored = checkpoints.restore(state)
            rows, so_far = [], []
            if restored:
                state, progress = restored
                rows, so_far = progress["rows"], progress["so_far"]
                self.batches.restore(progress["batches"])
            if (folder / TEST).exists():
                if len(rows) < config.epochs:
                    raise ValueError(
                        f"{folder} is finished, but its last checkpoint is gone: choose another "
                        "--output to train it again"
                    )
                return self.finished(params, rows)
            lines = [json.dumps(row) + "\n" for row in rows]
            write_aside(folder / METRICS, "".join(lines))
            done = int(state.step)
            loader, steps = self.batches.loader, self.batches.steps
            on_start(Started(folder, self.model, params, steps, done, loader))

            def save(state, so_far=(), score=None):
                progress = {"rows": rows, "so_far": so_far, "batches": self.batches.state()}
                weights = task.model_variables(state.eval_variables)
                checkpoints.save(state, weights, progress, score)

            def after_step(state, epoch, metrics):
                on_step()
                # What the epoch's last step leaves is saved with its validation.
                if not stop() or not self.batches.state()["step"]:
                    return
                metrics = jax.device_get(metrics)
                require_finite(metrics, state)
                save(state, [{k: float(v) for k, v in row.items()} for row in metrics])
                checkpoints.wait()
                raise Stopped(folder, int(state.step))

            epochs = fit(
                state,
                config.epochs,
                self.batches.epoch,
                lambda variables: task.evaluate(variables, self.data.val),
                task.augment,
                task.mix,
                task.objective,
                config.model_ema_decay,
                task.context,
                config.grad_accum_steps,
                after_step,
                first_epoch=len(rows),
                so_far=[{k: np.float32(v) for k, v in row.items()} for row in so_far],
            )
            with (folder / METRICS).open("a") as metrics:
                for state, row in epochs:
                    row = {**row, "lr": float(self.schedule(row["step"] - 1))}
                    rows.append(row)
                    metrics.write(json.dumps(row) + "\n")
                    metrics.flush()
                    save(state, score=row.get("val_accuracy", -row["val_loss"]))
                    on_epoch(row)
                    if stop() and row["epoch"] < config.epochs:
                        checkpoints.wait()
                        raise Stopped(folder, row["step"])
        return self.tested(state, params, rows, time.perf_counter() - start)

    def tested(self, state, params, rows, seconds) -> Result:
        """Looks at the test images, and leaves what is found in the folder."""
        test = self.task.evaluate(state.eval_variables, self.data.test)
        title = f"{self.config.model} on {self.config.dataset}"
        plot_curves(self.folder / "curves.png", rows, title)
        if "confusion" in test:
            picture_title = f"{title}: test accuracy {test['accuracy']:.1%}"
            picture = self.folder / "confusion.png"
            plot_confusion(picture, test["confusion"], self.data.classes, picture_title)
        scalars = {f"test_{name}": value for name, value in test.items() if np.ndim(value) == 0}
        write_aside(self.folder / TEST, json.dumps({**scalars, "params": params}, indent=2) + "\n")
        return Result(self.folder, params, rows[-1], test, seconds)

    def finished(self, params, rows) -> Result:
        """What a run that had come to its end before reported then."""
        saved = json.loads((self.folder / TEST).read_text())
        test = {name.removeprefix("test_"): value for name, value in saved.items()}
        return Result(self.folder, params, rows[-1], test, 0.0)
