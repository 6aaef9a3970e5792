"""Who else follows a run: TensorBoard, Weights & Biases, a profiler. Contexts, as `Progress` is.

`start(started)` comes before the first step, `step(steps)` whenever steps are dispatched, and
`epoch(row)` with each row of metrics.
"""

import dataclasses
import hashlib
from importlib import import_module
from pathlib import Path
from types import ModuleType

import jax

from vix_flax.trainer import Started
from vix_flax.training import TrainConfig


class Watcher:
    """A context that looks at nothing."""

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(self, *_):
        """Closes what was opened."""

    def start(self, started: Started) -> None:
        """What is known before the first step."""

    def step(self, steps: int) -> None:
        """So many steps more."""

    def epoch(self, row: dict[str, float]) -> None:
        """One epoch more."""


class TensorBoard(Watcher):
    """Every row as scalars, in the run's folder: `tensorboard --logdir runs`."""

    def __init__(self):
        self.module, self.writer = _imported("tensorboardX", "tensorboard"), None

    def start(self, started):
        """Hides what a process that was killed has logged beyond its last checkpoint."""
        folder = str(started.folder / "tensorboard")
        self.writer = self.module.SummaryWriter(folder, purge_step=started.done + 1)

    def epoch(self, row):
        """Logs it at its step."""
        for name, value in row.items():
            self.writer.add_scalar(name, value, row["step"])
        self.writer.flush()

    def __exit__(self, *_):
        if self.writer:
            self.writer.close()


class WandB(Watcher):
    """Every row to Weights & Biases, project vix_flax; a run that goes on keeps its page."""

    def __init__(self, config: TrainConfig):
        self.module, self.config, self.run = _imported("wandb", "wandb"), config, None

    def start(self, started):
        """Opens the page, named as the folder."""
        folder = started.folder.resolve()
        self.run = self.module.init(
            project="vix_flax",
            name=folder.name,
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:16],
            resume="allow",
            dir=str(folder),
            config={**dataclasses.asdict(self.config), "params": started.params},
        )

    def epoch(self, row):
        """Logs it at its step."""
        self.run.log(row, step=row["step"])

    def __exit__(self, *_):
        if self.run:
            self.run.finish()


class Profile(Watcher):
    """A trace of ten dispatches, after the first five, that TensorBoard and Perfetto open."""

    FIRST, LAST = 5, 15

    def __init__(self):
        self.folder, self.calls, self.tracing = None, 0, False

    def start(self, started):
        """Chooses where it goes: `profile` in the run's folder."""
        self.folder = started.folder / "profile"

    def step(self, steps):
        """Begins and ends the trace."""
        self.calls += 1
        if self.calls == self.FIRST:
            jax.profiler.start_trace(str(self.folder), create_perfetto_trace=True)
            self.tracing = True
        elif self.calls == self.LAST:
            self.__exit__()

    def __exit__(self, *_):
        if self.tracing:
            self.tracing = False
            jax.profiler.stop_trace()


def trace_of(folder: Path) -> Path | None:
    """The newest trace in a run's folder, for https://ui.perfetto.dev; None: there is none."""
    found = sorted(folder.glob("profile/plugins/profile/*/perfetto_trace.json.gz"))
    return found[-1] if found else None


def _imported(name: str, extra: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise ValueError(f"--log-{extra} needs {name}: pip install {name}") from None
