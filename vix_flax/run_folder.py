"""The folder of a run that is being trained: one process at a time, one config, rows of metrics."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from vix_flax.training import TrainConfig

CONFIG, METRICS, CHECKPOINT, TEST = "config.json", "metrics.jsonl", "checkpoint", "test.json"
# What may differ when a run goes on, because nothing that is learned depends on it.
MAY_CHANGE = ("data_dir", "loader", "keep", "mesh", "memory_limit", "fit")


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[None]:
    """Makes the folder, if there is none, and keeps other processes from training in it.

    A folder in which nothing was settled is gone afterwards.

    Raises:
        ValueError: it cannot be written, or another process trains in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(f"{folder} is being trained in by another process") from None
    except OSError as error:
        raise ValueError(f"output={str(folder)!r} cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
        if not (folder / CONFIG).exists():
            with contextlib.suppress(OSError):  # it is not empty: another's
                (folder / ".lock").unlink()
                folder.rmdir()


def as_fitted(config: TrainConfig, folder: Path) -> TrainConfig:
    """With `fit`: the config with what was changed when the run in this folder began.

    A damaged or missing `config.json` is `settle`'s to report.
    """
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
        saved = json.loads((folder / CONFIG).read_text())
        began = saved["config"]
        if config.fit and saved["fitted_from"] == fitted_fields(config):
            fields = dict(config.model_fields)
            if began["model_fields"].get("remat"):
                fields["remat"] = True
            fitted = {name: began[name] for name in ("batch_size", "grad_accum_steps")}
            return dataclasses.replace(config, model_fields=fields, **fitted)
    return config


def fitted_fields(config: TrainConfig) -> dict[str, Any]:
    """What `fit` may change, as it was asked for."""
    remat = bool(config.model_fields.get("remat"))
    return {
        "batch_size": config.batch_size,
        "grad_accum_steps": config.grad_accum_steps,
        "remat": remat,
    }


def settle(folder: Path, saved: Mapping[str, Any]) -> None:
    """Writes `config.json`, or, if there is one, checks that it says the same.

    Raises:
        ValueError: it says otherwise (names each field), or it cannot be read.
    """
    path = folder / CONFIG
    saved = json.loads(json.dumps(saved))  # lists instead of tuples
    if not path.exists():
        ours = (".lock", f"{CONFIG}.writing")  # the second of a process that was killed
        others = [p.name for p in folder.iterdir() if p.name not in ours]
        if others:
            raise ValueError(
                f"output={str(folder)!r} is no run's folder and not empty: it has {others[0]}"
            )
        return write_aside(path, json.dumps(saved, indent=2) + "\n")
    try:
        before = json.loads(path.read_text())
        # A field that there was not yet had the value that is its default now.
        old = {**json.loads(json.dumps(dataclasses.asdict(TrainConfig()))), **before["config"]}
        new = saved["config"]
        pairs = (old, new), (old["model_fields"], new["model_fields"])
        data = {name: before[name] for name in ("classes", "image_shape", "mean", "std")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}") from None
    differences = [
        f"{name}={new.get(name)!r} (was {old.get(name)!r})"
        for old, new in pairs
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and name not in (*MAY_CHANGE, "model_fields")
    ]
    if differences:
        raise ValueError(
            f"{folder} holds a run with another config: {', '.join(differences)}; leave that as it "
            "was, or choose another --output"
        )
    for name, value in data.items():
        if value != saved[name]:
            raise ValueError(
                f"{folder} holds a run on other data: the {name} of now are not those of then"
            )
    if before["config"] != saved["config"]:
        write_aside(path, json.dumps({**before, "config": saved["config"]}, indent=2) + "\n")
    return None


def write_aside(path: Path, text: str) -> None:
    """Writes a file so that it is whole whenever it is there."""
    aside = path.with_name(f"{path.name}.writing")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
