"""A run is a folder: config, metrics, checkpoint, pictures. `train` makes it, `Run` reads it."""

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
from vix_flax.data import Augment, Dataset, eval_batches, load_dataset, train_batches
from vix_flax.features import fine_tune_variables, with_features
from vix_flax.inspect import count_params
from vix_flax.layers import field_names
from vix_flax.models.image import example_image
from vix_flax.presets import PRESETS, create_model
from vix_flax.training import (
    Classify,
    Distill,
    TrainConfig,
    create_state,
    evaluate,
    fit,
    make_optimizer,
    make_schedule,
)
from vix_flax.training.checkpoint import restore_variables, save
from vix_flax.training.plots import plot_confusion, plot_curves
from vix_flax.wrappers.swap import swapped_variables

CONFIG, METRICS, CHECKPOINT = "config.json", "metrics.jsonl", "checkpoint"
EVAL_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model with what is needed to use it."""

    folder: Path
    config: TrainConfig
    model: nn.Module
    variables: dict
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    augment: Augment

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Reads a run's folder.

        Raises:
            ValueError: it is no run's folder, or something in it is missing or damaged.
        """
        folder = Path(folder)
        try:
            saved = json.loads((folder / CONFIG).read_text())
            config = TrainConfig(**saved["config"])
            classes, image_shape = tuple(saved["classes"]), tuple(saved["image_shape"])
            augment = _augment(config, tuple(saved["mean"]), tuple(saved["std"]))
        except FileNotFoundError:
            raise ValueError(f"{folder} is no run: it has no {CONFIG}") from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / CONFIG} cannot be read: {error!r}") from None
        model = create_model(config.model, **config.model_fields)
        abstract = jax.eval_shape(model.init, jax.random.key(0), example_image(model))
        variables = restore_variables(folder / CHECKPOINT, abstract)
        return cls(folder, config, model, variables, classes, image_shape, augment)

    def evaluate(self, split: str = "test", data_dir: str | None = None) -> dict:
        """`loss`, `accuracy` and `confusion` on "train", "val" or "test" of its data set."""
        data = load_dataset(self.config.dataset, data_dir or self.config.data_dir)
        batches = eval_batches(getattr(data, split), EVAL_BATCH)
        return evaluate(self.variables, batches, self.model.apply, self.augment)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities `(b, classes)` of images `(b, h, w, c)` uint8."""
        logits = jax.jit(self.model.apply)(self.variables, self.augment(images))
        return np.asarray(jax.nn.softmax(logits))


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
    data = load_dataset(config.dataset, config.data_dir)
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
    start_from = starting_variables(config, model)
    objective, context = make_objective(config, model, data)
    augment = _augment(config, data.mean, data.std)

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

    image = jax.ShapeDtypeStruct((1, *data.image_shape), "float32")
    state = create_state(model, image, tx, config.seed, config.model_ema, start_from)
    params = count_params(state.params)
    on_start(folder, model, params, steps)
    rows = []
    epochs = fit(
        state,
        config.epochs,
        lambda epoch: train_batches(data.train, batch_size, config.seed, epoch),
        lambda: eval_batches(data.val, EVAL_BATCH),
        augment,
        objective,
        config.model_ema_decay,
        context,
        on_step,
    )
    with (folder / METRICS).open("w") as metrics:
        for state, row in epochs:  # noqa: B007  (the last one is saved)
            row = {**row, "lr": float(schedule(row["step"] - 1))}
            metrics.write(json.dumps(row) + "\n")
            metrics.flush()
            rows.append(row)
            on_epoch(row)

    save(folder / CHECKPOINT, state)
    test_batches = eval_batches(data.test, EVAL_BATCH)
    test = evaluate(state.eval_variables, test_batches, model.apply, augment)
    title = f"{config.model} on {config.dataset}"
    plot_curves(folder / "curves.png", rows, title)
    picture_title = f"{title}: test accuracy {test['accuracy']:.1%}"
    plot_confusion(folder / "confusion.png", test["confusion"], data.classes, picture_title)
    final = {"test_loss": test["loss"], "test_accuracy": test["accuracy"], "params": params}
    (folder / "test.json").write_text(json.dumps(final, indent=2) + "\n")
    return Result(folder, params, rows[-1], test, time.perf_counter() - start)


def starting_variables(config: TrainConfig, model: nn.Module) -> dict | None:
    """Where training starts: another run's variables, made to fit; None: drawn anew.

    Raises:
        ValueError: the run cannot be read, or its model is too different.
    """
    key = jax.random.key(config.seed)
    if config.init_from:
        source = Run.load(config.init_from)
        return fine_tune_variables(source.variables, source.model, model, key)
    if config.swap:
        return swapped_variables(Run.load(config.swap).variables, model, key)
    return None


def make_objective(config: TrainConfig, model: nn.Module, data: Dataset) -> tuple[Callable, Any]:
    """What a step makes small, and the variables of the teacher, if there is one.

    Raises:
        ValueError: the teacher cannot be read, or was trained on other classes or images.
    """
    if config.teacher is None:
        return Classify(config.smoothing), None
    alone = config.teacher == "self"
    teacher = Run.load(config.swap if alone else config.teacher)
    if (teacher.classes, teacher.image_shape) != (tuple(data.classes), tuple(data.image_shape)):
        raise ValueError(
            f"teacher={config.teacher!r} was trained on {teacher.config.dataset}, whose classes or "
            f"images are not those of {data.name}"
        )
    if alone and model.remat:
        raise ValueError("teacher='self' compares every block's output: train without remat")
    distill = Distill(
        teacher.model.apply,
        with_features if alone else _without_features,
        config.distill == "hard",
        config.distill_temperature,
        config.distill_alpha,
        config.smoothing,
        blocks=float(alone),
    )
    return distill, teacher.variables


def _without_features(apply_fn, variables, images, **given):
    return *apply_fn(variables, images, **given), []


def _augment(config: TrainConfig, mean: tuple, std: tuple) -> Augment:
    return Augment(mean, std, config.crop_padding, config.flip)
