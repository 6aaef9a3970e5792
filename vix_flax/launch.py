"""From a config to a run's folder: check everything, then train, evaluate once, draw pictures.

A run that was stopped goes on from its newest checkpoint, as if it had never been.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

import vix_flax
from vix_flax.data import Dataset, TrainBatches, choose_loader
from vix_flax.layers import field_names
from vix_flax.preflight import first_that_fits, others
from vix_flax.presets import PRESETS, create_model
from vix_flax.processes import is_first, shard, together
from vix_flax.run import dataset_of
from vix_flax.run_folder import CHECKPOINT, CONFIG, TEST, as_fitted, fitted_fields, opened, settle
from vix_flax.task import make_task
from vix_flax.trainer import Hooks, Result, Started, Trainer
from vix_flax.training import TrainConfig, make_optimizer, make_schedule
from vix_flax.training.checkpoint import whole_steps
from vix_flax.training.mesh import make_mesh, put_whole


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


def train(
    config: TrainConfig,
    output: str | Path | None = None,
    resume: bool = True,
    on_start: Callable[[Started], Any] = lambda started: None,
    on_step: Callable[[int], Any] = lambda steps: None,
    on_epoch: Callable[[dict[str, float]], Any] = lambda row: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], Any] = print,
) -> Result:
    """Trains to the end, from the newest checkpoint if there is one.

    The test split is looked at once, at the end.

    Several processes train one run, if they have joined each other before; its folder must be one
    that all of them see.

    Args:
        config: what to train; see `RECIPES` for good starts.
        output: the run's folder; None: a new one under `runs`.
        resume: go on with the run in `output`; False: refuse to.
        on_start: called before the first step.
        on_step: called whenever steps are dispatched, with their number.
        on_epoch: called with each row of metrics.
        stop: asked as often; if it says so, a checkpoint is written and training stops.
        say: told what is tried to make a step fit into memory.

    Raises:
        ValueError: fields, data or folders that will not do, before anything is compiled; a step
            that needs too much memory; or a checkpoint that cannot be read.
        FloatingPointError: a loss or a gradient is no longer finite.
        OSError: a checkpoint cannot be written.
        Stopped: `stop` said so.
    """
    if jax.process_count() > 1 and not output:
        raise ValueError("several processes need one --output, a folder that all of them see")
    folder = Path(output) if output else None
    asked = fitted_fields(config)
    with together():
        config = as_fitted(config, folder) if folder else config
        # What it started from need not be there any more when it goes on.
        fresh = not (folder and whole_steps(folder / CHECKPOINT))
        trainer = prepare(config, dataset_of(config), fresh)
    folder = folder or new_folder("runs", f"{config.model}-{config.dataset}")
    with contextlib.ExitStack() as stack:
        with together():
            if is_first():
                stack.enter_context(opened(folder))
                if not resume and (folder / CONFIG).exists():
                    raise ValueError(
                        f"{folder} holds a run already: choose another output, or go on"
                    )
        with together():
            if not (folder / TEST).exists():
                trainer = preflight(trainer, fresh, (folder / CONFIG).exists(), say)
            if is_first():
                settle(folder, {**what_is_saved(trainer), "fitted_from": asked})
        return trainer.run(folder, Hooks(on_start, on_step, on_epoch, stop))


def prepare(config: TrainConfig, data: Dataset, fresh: bool = True) -> Trainer:
    """All that is made of a config, checked; nothing is compiled or written.

    Args:
        config: what to train.
        data: the data set that it names.
        fresh: False: training goes on, and does not read what it started from.

    Raises:
        ValueError: what will not do.
    """
    config, model = resolve(config, data)
    batch_size = min(config.batch_size, len(data.train))
    if batch_size % config.grad_accum_steps:
        raise ValueError(
            f"grad_accum_steps={config.grad_accum_steps} does not divide the batch of "
            f"{batch_size} images"
        )
    mesh = make_mesh(config.mesh, batch_size // config.grad_accum_steps)
    loader = config.loader or choose_loader(data.train)
    batches = TrainBatches(
        data.train,
        config.batch_size,
        config.seed,
        loader,
        shard(),
        config.steps_at_once,
        lambda held: put_whole(held, mesh),
    )
    steps = config.epochs * batches.steps
    warmup_steps = round(config.warmup_epochs * batches.steps)
    schedule = make_schedule(config.sched, config.lr, steps, warmup_steps, config.min_lr)
    tx = make_optimizer(
        config.opt, schedule, config.weight_decay, config.clip_grad, config.layer_decay
    )
    task = make_task(config, model, data, mesh, fresh)
    return Trainer(config, data, model, task, tx, schedule, batches, mesh)


def preflight(trainer: Trainer, fresh: bool, begun: bool, say: Callable[[str], Any]) -> Trainer:
    """The trainer, or, with its config's `fit`, another whose step fits into memory.

    Raises:
        ValueError: it does not fit.
    """
    config = trainer.config
    batch, parts = trainer.batches.batch_size, trainer.mesh.size
    if begun:  # what it began with stays
        return first_that_fits(trainer, None, say)
    # A teacher whose blocks are compared forbids it.
    has_remat = "remat" in field_names(type(trainer.model)) and config.teacher != "self"
    candidates = others(config, batch, parts, has_remat)
    prepared = (prepare(candidate, trainer.data, fresh) for candidate in candidates)
    return first_that_fits(trainer, prepared, say)


def what_is_saved(trainer: Trainer) -> dict[str, Any]:
    """What `config.json` holds."""
    data = trainer.data
    return {
        "config": dataclasses.asdict(trainer.config),
        "classes": data.classes,
        "image_shape": data.image_shape,
        "mean": data.mean,
        "std": data.std,
        "versions": {m.__name__: m.__version__ for m in (vix_flax, jax)},
    }
