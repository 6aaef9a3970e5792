"""`vix compare`: finished and unfinished runs in one table and one picture, from their metrics."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
            model, attention = config["model"], config["model_fields"].get("attention")
            dataset = config["dataset"]
        except FileNotFoundError as error:
            raise ValueError(f"{folder} is no run: it has no {Path(error.filename).name}") from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} cannot be read: {error!r}") from None
        if not rows:
            raise ValueError(f"{folder} has not finished an epoch yet")
        return cls(folder, f"{model} ({attention})" if attention else model, dataset, rows, test)

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
    """A name for each run: its model's, with the folder's where two are alike."""
    names = [run.model for run in runs]
    return [
        name if names.count(name) == 1 else f"{name}, {run.folder.name}"
        for name, run in zip(names, runs, strict=True)
    ]
