"""What a run learns: to classify, alone or from a teacher, or without labels inside a wrapper."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh

from vix_flax.data import Dataset, Mix, Split, TwoViews, eval_batches
from vix_flax.features import fine_tune_variables, with_features
from vix_flax.layers import field_names
from vix_flax.processes import shard
from vix_flax.run import EVAL_BATCH, Run, augment_of
from vix_flax.suggest import did_you_mean
from vix_flax.training import (
    Classify,
    Distill,
    OwnLoss,
    TrainConfig,
    evaluate,
    evaluate_own_loss,
)
from vix_flax.training.mesh import put_batch
from vix_flax.wrappers import BYOL, MPP, update_target
from vix_flax.wrappers.swap import swapped_variables

WRAPPERS = {"mpp": MPP, "byol": BYOL}


@dataclass(frozen=True)
class Task:
    """All of a run that depends on what is learned.

    Attributes:
        module: whose variables are trained: the model, or a wrapper around it.
        objective, augment, mix, context: as in `train_step`.
        evaluate: (the module's variables, split) → `loss`; with labels also as `training.evaluate`.
        inputs: examples of what the module is initialised with.
        start: the variables to start from; None: drawn anew.
        model_variables: the module's variables → the model's.
    """

    module: nn.Module
    objective: Callable
    augment: Callable
    evaluate: Callable[[dict, Split], dict]
    inputs: tuple[jax.ShapeDtypeStruct, ...]
    mix: Callable | None = None
    context: Any = None
    start: dict | None = None
    model_variables: Callable[[dict], dict] = lambda variables: variables


def make_task(
    config: TrainConfig, model: nn.Module, data: Dataset, mesh: Mesh, fresh: bool = True
) -> Task:
    """The config's objective for this model on this data.

    Args:
        config, model, data: what learns from what.
        mesh: where it is evaluated.
        fresh: False: training goes on, so that where it started need not be there any more.

    Raises:
        ValueError: an unknown option of the objective, a model that it cannot train, or a run to
            start or learn from that cannot be read or does not fit.
    """
    image = jax.ShapeDtypeStruct((1, *data.image_shape), "float32")
    if config.objective in WRAPPERS:
        return _without_labels(config, model, data, image)
    augment = augment_of(config, data.mean, data.std)
    objective, context = _with_labels(config, model, data)

    def accuracy(variables, split):
        batches = eval_batches(split, EVAL_BATCH, shard(), mesh.size)
        batches = (put_batch(batch, mesh) for batch in batches)
        return evaluate(variables, batches, model.apply, augment, mesh)

    start = starting_variables(config, model) if fresh else None
    mix = None
    if config.mixup or config.cutmix:
        mix = Mix(len(data.classes), config.mixup, config.cutmix)
    return Task(model, objective, augment, accuracy, (image,), mix, context, start)


def _without_labels(config, model, data, image) -> Task:
    wrapper, options = WRAPPERS[config.objective], dict(config.objective_options)
    for name in options:
        known = field_names(wrapper)
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"{config.objective} has no field {name!r}{hint}")
    if wrapper is MPP:
        sizes = {name: getattr(model, name, None) for name in ("patch_size", "dim", "channels")}
        given = dict(transformer=model, mean=data.mean, std=data.std)
        module = MPP(**{**sizes, **given, **options})
        objective = OwnLoss(streams=("mask",))
        augment, views = augment_of(config, data.mean, data.std), 1
    else:
        module = BYOL(**{"net": model, **options})
        objective = OwnLoss(
            views=2,
            mutable=("batch_stats", "target"),
            # The slow copy follows what the step before has made of the online encoder.
            prepare=partial(update_target, decay=module.moving_average_decay),
        )
        augment, views = TwoViews(data.mean, data.std), 2
    inputs = (image,) * views
    jax.eval_shape(module.init, jax.random.key(0), *inputs)  # whatever does not fit is found here

    def loss(variables, split):
        # The last batch is shortened, and none is cut: every device works through all of them.
        batches = eval_batches(split, EVAL_BATCH)
        return evaluate_own_loss(variables, batches, module.apply, augment, objective)

    def plain(variables):
        return module.to_model(variables)[1]

    return Task(module, objective, augment, loss, inputs, model_variables=plain)


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


def _with_labels(config, model, data) -> tuple[Callable, Any]:
    """The objective, and the variables of the teacher, if there is one."""
    if config.teacher is None:
        return Classify(config.smoothing), None
    alone = config.teacher == "self"
    teacher = Run.load(config.swap if alone else config.teacher)
    if (teacher.classes, teacher.image_shape) != (tuple(data.classes), tuple(data.image_shape)):
        raise ValueError(
            f"teacher={config.teacher!r} was trained on {teacher.config.dataset}, whose classes or "
            f"images are not those of {data.name}"
        )
    teacher.require_labels()
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
