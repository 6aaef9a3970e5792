"""Your own images: one folder for each class is a data set.

    python examples/own_images.py [FOLDER]

Takes about 15 seconds on 2 cores. FOLDER has `train/<class>/*.png` (or JPEG, WebP …), and `val/`
and `test/` alike, if you have them; without one it is made, of digits, and removed at the end.
`vix train --dataset folder --data-dir FOLDER` does the same with everything around it.
"""

import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import optax
from PIL import Image

import vix_flax as vix
from vix_flax.data import Augment, TrainBatches, eval_batches, load_dataset
from vix_flax.training import StepPrograms, create_state, evaluate, fit

EPOCHS = 6
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def write_digits(folder):
    """PNGs in train/<class>/, from which validation and test images will be drawn."""
    split = load_dataset("digits").train
    for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        path = folder / "train" / NAMES[label] / f"{i:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).resize((16, 16)).save(path)


def train_on(folder):
    data = load_dataset("folder", folder, img_size=16)  # a square of RGB, whatever they are
    print(f"{len(data.train)} images to train on, of shape {data.image_shape}, in", *data.classes)
    model = vix.create_model(
        "vit", image_size=data.image_shape[:2], num_classes=len(data.classes), patch_size=4,
        dim=48, depth=2, heads=3, dim_head=16, mlp_dim=96,
    )  # fmt: skip
    augment = Augment(data.mean, data.std, crop_padding=2)
    batches = TrainBatches(data.train, batch_size=32)
    tx = optax.adamw(optax.cosine_decay_schedule(3e-3, EPOCHS * batches.steps))
    state = create_state(model, jnp.zeros((1, *data.image_shape)), tx)
    step = StepPrograms(augment=augment)

    def score(variables, split=data.val):
        return evaluate(variables, eval_batches(split, 256), model.apply, augment)

    for latest, row in fit(state, EPOCHS, batches.epoch, score, step):
        print(f"step {latest.step:3}: validation accuracy {row['val_accuracy']:.1%}", flush=True)
    print(f"test accuracy {score(latest.eval_variables, data.test)['accuracy']:.1%}")


def main():
    if len(sys.argv) > 1:
        return train_on(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        write_digits(Path(folder))
        train_on(folder)


if __name__ == "__main__":
    main()
