"""Pictures of a run: curves per epoch, and which class was taken for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def plot_curves(path: Path, rows: Sequence[dict[str, float]], title: str) -> None:
    """Loss and accuracy of training and validation against epochs, side by side, as a PNG."""
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title)
    epochs = [row["epoch"] for row in rows]
    for axes, name, unit in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("loss (nats)", "accuracy"), strict=True
    ):
        for split, style, label in (
            ("train", "--", "train, augmented"),
            ("val", "-", "validation"),
        ):
            values = [row[f"{split}_{name}"] for row in rows]
            axes.plot(epochs, values, style, marker="." if len(rows) < 20 else "", label=label)
        axes.set(xlabel="epoch", ylabel=unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def plot_confusion(path: Path, confusion: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Counts `(classes, classes)`, true class by row, predicted by column, as a PNG.

    Shades are shares of the row; counts are written in for up to 20 classes.
    """
    from matplotlib.figure import Figure

    n = len(classes)
    side = min(4 + 0.35 * n, 12)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if n <= 50:
        axes.set_xticks(range(n), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.set_yticks(range(n), classes)
    if n <= 20:
        for i, j in np.argwhere(confusion):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, confusion[i, j], ha="center", va="center", color=color, fontsize=8)
    figure.savefig(path, dpi=120)
