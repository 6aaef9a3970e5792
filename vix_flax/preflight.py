"""Will a training step fit into memory? Asked of its program, before anything is trained."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax

from vix_flax.data.decode import memory_left
from vix_flax.processes import least
from vix_flax.training import TrainConfig

GIB = 2**30


def bytes_needed(compiled: Any) -> int:
    """What a compiled program holds on each device while it runs: arguments, results, the rest."""
    sizes = compiled.memory_analysis()
    held = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    return held + sizes.temp_size_in_bytes


def bytes_there(limit: float | None = None) -> int:
    """What one device offers, or the `limit` in GiB."""
    if limit is not None:
        return int(limit * GIB)
    device = jax.local_devices()[0]
    if device.platform == "cpu":  # simulated devices share the machine's memory
        return memory_left() // jax.local_device_count()
    return (device.memory_stats() or {}).get("bytes_limit", 2**63)


def others(config: TrainConfig, batch: int, parts: int, has_remat: bool) -> Iterator[TrainConfig]:
    """Configs whose steps need less memory, the least harm first.

    `remat` costs nothing but time, accumulation changes what BatchNorm sees, and a smaller batch
    what is learned.

    Args:
        config: what does not fit.
        batch: images a step.
        parts: what they must still be divided by: the number of devices.
        has_remat: whether the model has that field.
    """
    leaner = [config]
    if has_remat and not config.model_fields.get("remat"):
        fields = {**config.model_fields, "remat": True}
        leaner.append(dataclasses.replace(config, model_fields=fields))
        yield leaner[-1]
    accumulated = config.grad_accum_steps
    while config.objective != "byol" and batch % (2 * accumulated * parts) == 0:
        accumulated *= 2
        for each in leaner:
            yield dataclasses.replace(each, grad_accum_steps=accumulated)
    while batch % (2 * parts) == 0 and batch > 2 * parts:
        batch //= 2
        yield dataclasses.replace(leaner[-1], batch_size=batch, grad_accum_steps=1)


def first_that_fits(trainer: Any, prepared: Iterator[Any] | None, say: Callable[[str], Any]) -> Any:
    """The trainer, if its step fits; if its config says `fit`, else the first of the others.

    Args:
        trainer: has a `config`, and `bytes_needed()`, which compiles a step.
        prepared: others, made when they are asked for; None: it must be this one.
        say: told of each that is tried.

    Raises:
        ValueError: it does not fit; says what would help.
    """
    config = trainer.config
    there = least(bytes_there(config.memory_limit))  # all must come to one decision
    wanted = trainer.bytes_needed()
    if wanted <= there:
        return trainer
    short = f"a step needs {wanted / GIB:.3g} GiB of each device, which has {there / GIB:.3g}"
    if config.fit and prepared is None:
        raise ValueError(f"{short}, and a run that goes on keeps its batches: use other devices")
    if not config.fit:
        raise ValueError(
            f"{short}: choose a smaller --batch-size (it is {config.batch_size}), more "
            f"--grad-accum-steps (it is {config.grad_accum_steps}), --set remat=true, or --fit: "
            "the first of these that fits"
        )
    say(short)
    for other in prepared:
        needed = other.bytes_needed()
        say(f"with {differences(config, other.config)}: {needed / GIB:.3g} GiB")
        if needed <= there:
            return other
    raise ValueError(f"{short}, and nothing that --fit has tried fits: choose a smaller model")


def differences(config: TrainConfig, other: TrainConfig) -> str:
    """What is other, as flags, such as `--grad-accum-steps 2 --set remat=true`."""
    said = [
        f"--{name.replace('_', '-')} {getattr(other, name)}"
        for name in ("batch_size", "grad_accum_steps")
        if getattr(config, name) != getattr(other, name)
    ]
    if config.model_fields.get("remat") != other.model_fields.get("remat"):
        said.append("--set remat=true")
    return " ".join(said)
