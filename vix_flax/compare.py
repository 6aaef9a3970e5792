"""`vix compare`: finished and unfinished runs in one table and one picture, from their metrics."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vix_flax.run_folder import CONFIG, METRICS, TEST


@dataclass(frozen=True)
class History:
    """What a run's folder says about how it went; its checkpoint is not needed.

    Attributes:
        folder: of the run.
        model, dataset: their names; a swapped attention is part of the model's.
        rows: of metrics, one an epoch.
        test: `test_accuracy`, `test_loss`, `params`; empty while it is running.
    """

    folder: Path
    model: str
    dataset: str
    rows: tuple[dict, ...]
    test: dict

    @classmethod
    def read(cls, folder: str | Path) -> "History":
        """Reads a run's folder.

        Raises:
            ValueError: it is no run's folder, has no epoch yet, or something in it is damaged.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / CONFIG).read_text())["config"]
            rows = tuple(map(json.loads, (folder / METRICS).read_text().splitlines()))
            finished = folder / TEST
            test = json.loads(finished.read_text()) if finished.exists() else {}
            model = called(config["model"], config["model_fields"])
            dataset = config["dataset"]
        except FileNotFoundError as error:
            raise ValueError(f"{folder} is no run: it has no {Path(error.filename).name}") from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} cannot be read: {error!r}") from None
        if not rows:
            raise ValueError(f"{folder} has not finished an epoch yet")
        return cls(folder, model, dataset, rows, test)

    def best(self, metric: str) -> float | None:
        """The best of a validation metric over all epochs; None where there is none."""
        values = [row[metric] for row in self.rows if metric in row]
        return (min if metric.endswith("loss") else max)(values, default=None)

    @property
    def seconds_an_epoch(self) -> float:
        """Of training, the first epoch left out where there are more: it compiles."""
        seconds = [row["seconds"] for row in self.rows]
        later = seconds[1:] or seconds
        return sum(later) / len(later)


def labels(runs: Sequence[History]) -> list[str]:
    """A name for each run."""
    return told_apart([run.model for run in runs], [run.folder for run in runs])


def called(model: str, fields: Mapping[str, Any]) -> str:
    """What a model of these fields is called: its name, and its attention if that was changed."""
    attention = fields.get("attention")
    return f"{model} ({attention})" if attention else model


def told_apart(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The names; where two are alike, with their folders' names, or with their whole paths."""
    told = list(names)
    for told_by in (lambda folder: folder.name, str):
        told = [
            was if told.count(was) == 1 else f"{name}, {told_by(folder)}"
            for was, name, folder in zip(told, names, folders, strict=True)
        ]
    return told
