"""From a config to a run's folder: check everything, then train, evaluate once, draw pictures."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

import vix_flax
from vix_flax.data import Dataset, train_batches
from vix_flax.inspect import count_params
from vix_flax.layers import field_names
from vix_flax.presets import PRESETS, create_model
from vix_flax.run import CHECKPOINT, CONFIG, METRICS, dataset_of
from vix_flax.task import make_task
from vix_flax.training import TrainConfig, create_state, fit, make_optimizer, make_schedule
from vix_flax.training.checkpoint import save
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
class Result:
    """What a finished training run has to report."""

    folder: Path
    params: int
    val: dict[str, Any]
    test: dict[str, Any]
    seconds: float


def train(
    config: TrainConfig,
    output: str | Path = "runs",
    on_start: Callable[[Path, nn.Module, int, int], None] = lambda *_: None,
    on_step: Callable[[], None] = lambda: None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> Result:
    """Trains to the end and leaves a run's folder under `output`.

    The test split is looked at once, at the end. Metrics are written after each epoch, so an
    interrupted run leaves what it had.

    Args:
        config: what to train; see `RECIPES` for good starts.
        output: the parent of the run's folder.
        on_start: called with the folder, the model, its parameter count and the steps an epoch.
        on_step: called after each step.
        on_epoch: called with each row of metrics.

    Raises:
        ValueError: fields, data or folders that will not do; before anything is compiled.
        FloatingPointError: the loss is no longer finite.
    """
    start = time.perf_counter()
    data = dataset_of(config)
    config, model = resolve(config, data)
    batch_size = min(config.batch_size, len(data.train))
    steps = len(data.train) // batch_size
    schedule = make_schedule(
        config.sched,
        config.lr,
        config.epochs * steps,
        round(config.warmup_epochs * steps),
        config.min_lr,
    )
    tx = make_optimizer(config.opt, schedule, config.weight_decay, config.clip_grad)
    task = make_task(config, model, data)

    folder = new_folder(output, f"{config.model}-{config.dataset}")
    saved = {
        "config": dataclasses.asdict(config),
        "classes": data.classes,
        "image_shape": data.image_shape,
        "mean": data.mean,
        "std": data.std,
        "versions": {m.__name__: m.__version__ for m in (vix_flax, jax)},
    }
    (folder / CONFIG).write_text(json.dumps(saved, indent=2) + "\n")

    state = create_state(task.module, task.inputs, tx, config.seed, config.model_ema, task.start)
    params = count_params(task.model_variables({"params": state.params}))
    on_start(folder, model, params, steps)
    rows = []
    epochs = fit(
        state,
        config.epochs,
        lambda epoch: train_batches(data.train, batch_size, config.seed, epoch),
        lambda variables: task.evaluate(variables, data.val),
        task.augment,
        task.mix,
        task.objective,
        config.model_ema_decay,
        task.context,
        on_step,
    )
    with (folder / METRICS).open("w") as metrics:
        for state, row in epochs:  # noqa: B007  (the last one is saved)
            row = {**row, "lr": float(schedule(row["step"] - 1))}
            metrics.write(json.dumps(row) + "\n")
            metrics.flush()
            rows.append(row)
            on_epoch(row)

    save(folder / CHECKPOINT, state, task.model_variables(state.eval_variables))
    test = task.evaluate(state.eval_variables, data.test)
    title = f"{config.model} on {config.dataset}"
    plot_curves(folder / "curves.png", rows, title)
    if "confusion" in test:
        picture_title = f"{title}: test accuracy {test['accuracy']:.1%}"
        plot_confusion(folder / "confusion.png", test["confusion"], data.classes, picture_title)
    scalars = {f"test_{name}": test[name] for name in ("loss", "accuracy") if name in test}
    (folder / "test.json").write_text(json.dumps({**scalars, "params": params}, indent=2) + "\n")
    return Result(folder, params, rows[-1], test, time.perf_counter() - start)
