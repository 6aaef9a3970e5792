"""A run is a folder: config, metrics, checkpoint, pictures. `launch.train` makes it; read here."""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

from vix_flax.data import Augment, Dataset, eval_batches, load_dataset
from vix_flax.models.image import example_image
from vix_flax.presets import create_model
from vix_flax.training import TrainConfig, evaluate
from vix_flax.training.checkpoint import restore_variables

CONFIG, METRICS, CHECKPOINT = "config.json", "metrics.jsonl", "checkpoint"
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
    def load(cls, folder: str | Path) -> "Run":
        """Reads a run's folder.

        Raises:
            ValueError: it is no run's folder, or something in it is missing or damaged.
        """
        folder = Path(folder)
        try:
            saved = json.loads((folder / CONFIG).read_text())
            config = TrainConfig(**saved["config"])
            classes, image_shape = tuple(saved["classes"]), tuple(saved["image_shape"])
            augment = augment_of(config, tuple(saved["mean"]), tuple(saved["std"]))
        except FileNotFoundError:
            raise ValueError(f"{folder} is no run: it has no {CONFIG}") from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / CONFIG} cannot be read: {error!r}") from None
        model = create_model(config.model, **config.model_fields)
        abstract = jax.eval_shape(model.init, jax.random.key(0), example_image(model))
        variables = restore_variables(folder / CHECKPOINT, abstract)
        return cls(folder, config, model, variables, classes, image_shape, augment)

    def evaluate(self, split: str = "test", data_dir: str | None = None) -> dict:
        """`loss`, `accuracy` and `confusion` on "train", "val" or "test" of its data set.

        Raises:
            ValueError: it was trained without labels, or its data set cannot be read.
        """
        self.require_labels()
        data = dataset_of(self.config, data_dir)
        batches = eval_batches(getattr(data, split), EVAL_BATCH)
        return evaluate(self.variables, batches, self.model.apply, self.augment)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities `(b, classes)` of images `(b, h, w, c)` uint8.

        Raises:
            ValueError: it was trained without labels.
        """
        self.require_labels()
        logits = jax.jit(self.model.apply)(self.variables, self.augment(images))
        return np.asarray(jax.nn.softmax(logits))

    def require_labels(self) -> None:
        """Raises ValueError if the head has never seen a label."""
        if self.config.objective != "classify":
            raise ValueError(
                f"{self.folder} was trained without labels ({self.config.objective}): train its "
                f"head first, vix train --init-from {self.folder}"
            )


def dataset_of(config: TrainConfig, data_dir: str | None = None) -> Dataset:
    """The config's data, from another folder if one is given."""
    options = {name: getattr(config, name) for name in ("img_size", "on_bad_image")}
    return load_dataset(config.dataset, data_dir or config.data_dir, **options)


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
