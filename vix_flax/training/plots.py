"""Pictures of a run: curves per epoch, and which class was taken for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def plot_curves(path: Path, rows: Sequence[dict[str, float]], title: str) -> None:
    """Loss and accuracy (if rows have one) of training and validation against epochs, as a PNG."""
    from matplotlib.figure import Figure  # takes a second to import

    shown = [name for name in ("loss", "accuracy") if f"val_{name}" in rows[0]]
    figure = Figure(figsize=(4.5 * len(shown), 3.6), layout="constrained")
    figure.suptitle(title)
    epochs = [row["epoch"] for row in rows]
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for split, style, label in (
            ("train", "--", "train, augmented"),
            ("val", "-", "validation"),
        ):
            values = [row[f"{split}_{name}"] for row in rows]
            axes.plot(epochs, values, style, marker="." if len(rows) < 20 else "", label=label)
        axes.set(xlabel="epoch", ylabel=name)
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


def plot_attention(
    path: Path,
    image: np.ndarray,
    layers: Sequence[np.ndarray | None],
    rollout: np.ndarray | None,
    title: str,
) -> None:
    """Attention over the image, a row for each layer and a column for each head, as a PNG.

    Args:
        path: of the picture.
        image: `(h, w, c)` uint8.
        layers: `(heads, rows, columns)` each, brighter where more is taken from; None is left out.
        rollout: `(1, rows, columns)`, what has been taken through all layers, shown first.
        title: of the picture.
    """
    from matplotlib.figure import Figure

    shown = [(f"layer {i}", maps) for i, maps in enumerate(layers, 1) if maps is not None]
    shown = ([("rollout", rollout)] if rollout is not None else []) + shown
    columns = 1 + max(len(maps) for _, maps in shown)
    figure = Figure(figsize=(1.6 * columns, 1.7 * len(shown) + 0.4), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(shown), columns, squeeze=False)
    height, width = image.shape[:2]
    picture = image[..., 0] if image.shape[-1] == 1 else image
    for (name, maps), row in zip(shown, grid, strict=True):
        for axes in row:
            axes.set_axis_off()
        row[0].imshow(picture, cmap="gray")
        row[0].set_title(name, fontsize=8, loc="left")
        for head, (axes, weights) in enumerate(zip(row[1:], maps, strict=False), 1):
            axes.imshow(picture, cmap="gray")
            extent = (-0.5, width - 0.5, height - 0.5, -0.5)
            axes.imshow(weights, extent=extent, cmap="magma", alpha=0.65, interpolation="bilinear")
            if len(maps) > 1:
                axes.set_title(f"head {head}", fontsize=8)
    figure.savefig(path, dpi=110)


def plot_images(path: Path, rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> None:
    """Pictures `(h, w, c)` uint8 in rows, a title over the first of each row, as a PNG."""
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(1.2 * columns, 1.35 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for row, pictures, title in zip(grid, rows, titles, strict=True):
        row[0].set_title(title, fontsize=8, loc="left")
        for axes, picture in zip(row, pictures, strict=False):
            axes.imshow(picture[..., 0] if picture.shape[-1] == 1 else picture, cmap="gray")
    figure.savefig(path, dpi=130)


def plot_comparison(path: Path, runs: dict[str, Sequence[dict[str, float]]], title: str) -> None:
    """Validation accuracy (loss, where a run has no other) against epochs and against seconds of
    training, side by side, a line for each run, as a PNG."""
    from matplotlib.figure import Figure

    shared = all("val_accuracy" in rows[0] for rows in runs.values())
    metric = "val_accuracy" if shared else "val_loss"
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    by_epoch, by_time = figure.subplots(1, 2, sharey=True)
    for name, rows in runs.items():
        values = [row[metric] for row in rows]
        marker = "." if len(rows) < 20 else ""
        by_epoch.plot([row["epoch"] for row in rows], values, marker=marker, label=name)
        by_time.plot(np.cumsum([row["seconds"] for row in rows]), values, marker=marker)
    by_epoch.set(xlabel="epoch", ylabel=metric.replace("val_", "validation "))
    by_time.set(xlabel="seconds of training")
    for axes in (by_epoch, by_time):
        axes.grid(alpha=0.3)
    by_epoch.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*by_epoch.get_legend_handles_labels(), fontsize=8, loc="outside right center")
    figure.savefig(path, dpi=120)
