"""What `vix train` shows while it runs: a bar in a terminal, a line for each epoch elsewhere."""

from pathlib import Path

from flax import linen as nn
from rich import progress as bars
from rich.console import Console

from vix_flax.training import TrainConfig


class Progress:
    """A context manager whose methods `start`, `step` and `epoch` fit the hooks of `run.train`."""

    def __init__(self, config: TrainConfig, console: Console):
        self.config, self.console = config, console
        self.bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[status]}"),
            bars.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = None
        self.folder = None
        self.status = "first epoch"

    def __enter__(self):
        self.bar.start()
        self.console.print("preparing data and compiling …", style="dim")
        return self

    def __exit__(self, kind, *_):
        self.bar.stop()
        if kind is KeyboardInterrupt and self.folder:
            self.console.print(f"stopped early; metrics up to here are in {self.folder}")

    def start(self, folder: Path, model: nn.Module, params: int, steps: int) -> None:
        """Says what is trained and where, before the first step compiles."""
        self.folder = folder
        name = f"{self.config.model} ({params:,} parameters) on {self.config.dataset}"
        self.console.print(f"{name}: {self.config.epochs} epochs of {steps} steps → {folder}")
        total = self.config.epochs * steps
        self.task = self.bar.add_task("steps", total=total, status="compiling")

    def step(self) -> None:
        """One more step."""
        self.bar.update(self.task, advance=1, status=self.status)

    def epoch(self, row: dict[str, float]) -> None:
        """One more epoch: its row of metrics."""
        losses = f"train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}"
        self.status = f"val loss {row['val_loss']:.4f}"
        if "val_accuracy" in row:
            self.status = f"val accuracy {row['val_accuracy']:.2%}"
            losses += f"  {self.status}"
        self.console.print(
            f"epoch {row['epoch']:>3}/{self.config.epochs}  {losses}"
            f"  {row['images_per_second']:,.0f} images/s"
        )
