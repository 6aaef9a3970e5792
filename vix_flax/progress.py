"""What `vix train` shows while it runs: a bar in a terminal, a line for each epoch elsewhere."""

from rich import progress as bars
from rich.console import Console

from vix_flax.trainer import Started
from vix_flax.training import TrainConfig

IMAGES = {
    "memory": "images in memory",
    "device": "images on the device",
    "stream": "images streamed",
}


class Progress:
    """A context whose methods `start`, `step` and `epoch` fit the hooks of `launch.train`."""

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
        self.status = "first epoch"

    def __enter__(self):
        self.bar.start()
        self.console.print("preparing data and compiling …", style="dim")
        return self

    def __exit__(self, *_):
        self.bar.stop()

    def start(self, started: Started) -> None:
        """Says what is trained and where, before the first step compiles."""
        epochs, steps = self.config.epochs, started.steps
        devices = started.mesh.size
        places = f"on {devices} devices, " if devices > 1 else ""
        goes_on = f", from step {started.done + 1}" if started.done else ""
        self.console.print(
            f"{self.config.model} ({started.params:,} parameters) on {self.config.dataset}: "
            f"{epochs} epochs of {steps} steps{goes_on}, {places}{IMAGES[started.loader]} "
            f"→ {started.folder}"
        )
        self.task = self.bar.add_task(
            "steps", total=epochs * steps, completed=started.done, status="compiling"
        )

    def step(self, steps: int) -> None:
        """So many more steps."""
        self.bar.update(self.task, advance=steps, status=self.status)

    def epoch(self, row: dict[str, float]) -> None:
        """One more epoch: its row of metrics."""
        losses = f"train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}"
        self.status = f"val loss {row['val_loss']:.4f}"
        if "val_accuracy" in row:
            self.status = f"val accuracy {row['val_accuracy']:.2%}"
            losses += f"  {self.status}"
        self.console.print(
            f"epoch {row['epoch']:>3}/{self.config.epochs}  {losses}"
            f"  {row['images_per_second']:,.0f} images/s  {row['memory_gib']:.1f} GiB"
        )
