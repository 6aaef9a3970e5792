"""A run is a folder: config, metrics, checkpoint, pictures. `launch.train` makes it; read here."""

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

from vix_flax.attention_maps import attention_maps, attention_rollout, over_image
from vix_flax.data import Augment, Dataset, eval_batches, load_dataset
from vix_flax.models.image import example_image
from vix_flax.presets import create_model
from vix_flax.run_folder import CHECKPOINT, CONFIG
from vix_flax.training import TrainConfig, evaluate
from vix_flax.training.checkpoint import restore_variables

EVAL_BATCH = 256


@dataclass(frozen=True)
class Run:
    """A trained model with what is needed to use it."""

    folder: Path
    config: TrainConfig
    model: nn.Module
    variables: dict
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    augment: Augment

    @classmethod
    def load(cls, folder: str | Path, best: bool = False, averaged: bool = True) -> "Run":
        """Reads a run's folder.

        Args:
            folder: the run's.
            best: with the variables of its best checkpoint, not of the newest.
            averaged: with the moving average of the parameters, if it kept one.

        Raises:
            ValueError: it is no run's folder, or something in it is missing or damaged.
        """
        folder = Path(folder)
        config, saved = _read_config(folder)
        try:
            classes, image_shape = tuple(saved["classes"]), tuple(saved["image_shape"])
            augment = augment_of(config, tuple(saved["mean"]), tuple(saved["std"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder / CONFIG} cannot be read: {error!r}") from None
        model = create_model(config.model, **config.model_fields)
        abstract = jax.eval_shape(model.init, jax.random.key(0), example_image(model))
        variables = restore_variables(folder / CHECKPOINT, abstract, best, averaged)
        return cls(folder, config, model, variables, classes, image_shape, augment)

    def evaluate(
        self, split: str = "test", data_dir: str | None = None, dataset: str | None = None
    ) -> dict:
        """`loss`, `accuracy`, `top5` and `confusion` on "train", "val" or "test" of its data set,
        or of another with the same classes and image shape.

        Raises:
            ValueError: it was trained without labels, or the data set cannot be read or is of
                other classes or images.
        """
        self.require_labels()
        config = self.config
        if dataset not in (None, config.dataset):
            size = self.image_shape[0] if dataset == "folder" else None
            config = dataclasses.replace(
                config, dataset=dataset, data_dir=None, img_size=size, on_bad_image=None
            )
        data = dataset_of(config, data_dir)
        if (data.classes, data.image_shape) != (self.classes, self.image_shape):
            raise ValueError(
                f"{data.name} has {len(data.classes)} classes and images {data.image_shape}, "
                f"{self.folder} was trained on {len(self.classes)} and {self.image_shape}: the "
                "names of the classes must be the same, too"
            )
        batches = eval_batches(getattr(data, split), EVAL_BATCH)
        return evaluate(self.variables, batches, self.model.apply, self.augment)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities `(b, classes)` of images `(b, h, w, c)` uint8.

        Raises:
            ValueError: it was trained without labels.
        """
        self.require_labels()
        return np.asarray(_probabilities(self.model, self.variables, self.augment(images)))

    def attention(self, image: np.ndarray) -> tuple[list[np.ndarray | None], np.ndarray | None]:
        """What each layer and head takes from where in an image `(h, w, c)` uint8.

        Returns:
            `(heads, rows, columns)` for each layer (`over_image`), None where its keys are no map
            of the image; and `(1, rows, columns)`, the same through all layers
            (`attention_rollout`), None where layers differ in size.

        Raises:
            ValueError: nothing in the model attends, or no layer's keys are a map of the image.
        """
        maps = attention_maps(self.model, self.variables, self.augment(image[None]))
        each = maps if isinstance(maps, tuple) else maps.swapaxes(0, 1)
        layers = [self._over(layer[0], image) for layer in each]
        if all(layer is None for layer in layers):
            raise ValueError(f"{self.config.model}: its maps do not lie on the image as a grid")
        rollout = None
        if not isinstance(maps, tuple) and maps.shape[-1] == maps.shape[-2]:
            rollout = self._over(attention_rollout(maps), image)
        return layers, rollout

    def _over(self, maps: jax.Array, image: np.ndarray) -> np.ndarray | None:
        try:
            return np.asarray(over_image(self.model, maps, image.shape[:2]))
        except ValueError:
            return None

    def require_labels(self) -> None:
        """Raises ValueError if the head has never seen a label."""
        if self.config.objective != "classify":
            raise ValueError(
                f"{self.folder} was trained without labels ({self.config.objective}): train its "
                f"head first, vix train --init-from {self.folder}"
            )


@partial(jax.jit, static_argnums=0)  # one program for all calls
def _probabilities(model, variables, images):
    return jax.nn.softmax(model.apply(variables, images))


def saved_config(folder: str | Path) -> TrainConfig:
    """What the run in this folder trains.

    Raises:
        ValueError: it is no run's folder, or what is in it is damaged.
    """
    return _read_config(Path(folder))[0]


def _read_config(folder: Path) -> tuple[TrainConfig, dict]:
    try:
        saved = json.loads((folder / CONFIG).read_text())
        return TrainConfig(**saved["config"]), saved
    except FileNotFoundError:
        raise ValueError(f"{folder} is no run: it has no {CONFIG}") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} cannot be read: {error!r}") from None


def dataset_of(config: TrainConfig, data_dir: str | None = None) -> Dataset:
    """The config's data, from another folder if one is given."""
    options = {name: getattr(config, name) for name in ("img_size", "on_bad_image")}
    stream = None if config.loader is None else config.loader == "stream"
    return load_dataset(config.dataset, data_dir or config.data_dir, stream, **options)


def augment_of(config: TrainConfig, mean: tuple, std: tuple) -> Augment:
    """What the config does to images, with the data set's statistics."""
    return Augment(
        mean,
        std,
        crop_padding=config.crop_padding,
        flip=config.flip,
        min_crop=config.min_crop,
        color_jitter=config.color_jitter,
        policy=config.aa,
        policy_magnitude=config.aa_magnitude,
        erase=config.reprob,
    )
