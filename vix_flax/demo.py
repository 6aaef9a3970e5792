"""The page of `vix demo`: what runs see in an image, and where their attention takes it from.

The image's file is read as `vix predict` reads it. What a run made of it is kept while the image
is on the page: another layer or head, or a run seen before, computes nothing but the picture.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from vix_flax.compare import called, told_apart
from vix_flax.data.image_file import decode_image
from vix_flax.run import Run, dataset_of

SIDE = 384  # pixels of the longer side of an overlay
OPACITY = 0.62  # of the map over the image
ROLLOUT, LAYER = "all layers (rollout)", "one layer"
EXAMPLES = 10


@dataclass(frozen=True)
class View:
    """What a run makes of an image.

    Attributes:
        image: `(h, w, c)` uint8, as the model gets it.
        probabilities: `(classes,)`.
        layers: `(heads, rows, columns)` each, None where a layer's keys are no map of the image.
        rollout: `(1, rows, columns)`, or None.
        why_none: why there are no maps at all, or "".
    """

    image: np.ndarray
    probabilities: np.ndarray
    layers: Sequence[np.ndarray | None] = ()
    rollout: np.ndarray | None = None
    why_none: str = ""

    @property
    def heads(self) -> int:
        """Of the layer that has most."""
        return max((len(maps) for maps in self.layers if maps is not None), default=0)

    def chosen(self, what: str, layer: int, head: int) -> tuple[np.ndarray | None, str]:
        """A map `(rows, columns)`, if there is that one, and what to write below it.

        Args:
            what: `ROLLOUT` or `LAYER`.
            layer: from 1; the last where it has fewer.
            head: from 1, the last where it has fewer; 0: the mean of all.
        """
        if self.why_none:
            return None, f"No overlay: {self.why_none}."
        if what == ROLLOUT:
            if self.rollout is None:
                return None, "No rollout: the layers differ in size, or their keys are no map."
            return self.rollout[0], "Rollout through all layers"
        layer = min(layer, len(self.layers))
        name, maps = f"Layer {layer} of {len(self.layers)}", self.layers[layer - 1]
        if maps is None:
            return None, f"{name}: its keys are no map of the image."
        if head == 0 or len(maps) == 1:
            mean = f"mean of {len(maps)} heads" if len(maps) > 1 else "its only head"
            return maps.mean(axis=0), f"{name}, {mean}"
        head = min(head, len(maps))
        return maps[head - 1], f"{name}, head {head} of {len(maps)}"


@dataclass(frozen=True)
class File:
    """An image file on the page, and the views of it that there are already, by run."""

    content: bytes
    name: str
    views: dict[int, View] = field(default_factory=dict)


def look(run: Run, image: np.ndarray) -> View:
    """What the run makes of an image `(h, w, c)` uint8."""
    probabilities = run.predict(image[None])[0]
    try:
        layers, rollout = run.attention(image)
    except ValueError as error:  # nothing attends, or not to places of the image
        return View(image, probabilities, why_none=str(error))
    return View(image, probabilities, layers, rollout)


def best(run: Run, probabilities: np.ndarray, top_k: int) -> dict[str, float]:
    """The most probable classes, the first of them first."""
    order = np.argsort(-probabilities)[:top_k]
    return {run.classes[i]: float(probabilities[i]) for i in order}


def overlay(image: np.ndarray, weights: np.ndarray | None) -> Image.Image:
    """A map over an image, `SIDE` pixels long: brighter where more is taken from.

    Args:
        image: `(h, w, c)` uint8; its pixels stay squares.
        weights: `(rows, columns)` of any range, drawn smoothly; None: the image alone.
    """
    from matplotlib import colormaps  # takes a while to import

    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB")
    smooth = Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.NEAREST
    picture = picture.resize(size, smooth)
    if weights is None:
        return picture
    low, high = float(weights.min()), float(weights.max())
    share = (weights - low) / max(high - low, 1e-12)
    share = Image.fromarray(share.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    colours = colormaps["magma"](np.clip(np.asarray(share), 0, 1), bytes=True)[..., :3]
    return Image.blend(picture, Image.fromarray(colours), OPACITY)


def names_of(runs: Sequence[Run]) -> list[str]:
    """A name for each run, as in `vix compare`."""
    names = [called(run.config.model, run.config.model_fields) for run in runs]
    return told_apart(names, [run.folder for run in runs])


def examples(run: Run) -> list[bytes]:
    """The first test image of each class, as PNG files; none where the data set is not here."""
    try:
        test = dataset_of(run.config).test
        _, firsts = np.unique(test.labels, return_index=True)
        return [png(test.images[i]) for i in firsts[:EXAMPLES]]
    except (ValueError, OSError):
        return []


def png(image: np.ndarray) -> bytes:
    """An image `(h, w, c)` uint8 as a file's content."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def views_of(file: File, runs: Sequence[Run], wanted: Sequence[int]) -> list[View]:
    """Views of the file by the wanted runs; computes those that there are not yet.

    Raises:
        ValueError: it is no image that can be read.
    """
    for i in wanted:
        if i not in file.views:
            image = decode_image(file.content, runs[i].image_shape, file.name)
            file.views[i] = look(runs[i], image)
    return [file.views[i] for i in wanted]
