"""What a trained model looks at: every layer and head over one digit, and their rollout, as a PNG.

    python examples/attention_maps.py [PICTURE]

Takes about 35 seconds on 2 cores and writes `attention_maps.png`. Attentions that never form such
maps have them, too: make MODEL "vin". `vix attention RUN IMAGE` draws the same of any run.
"""

import dataclasses
import sys
import tempfile

import vix_flax as vix
from vix_flax.data import load_dataset
from vix_flax.launch import train
from vix_flax.recipes import recipe
from vix_flax.run import Run
from vix_flax.training.plots import plot_attention

MODEL, EPOCHS = "vit", 8


def trained():
    """A run of a small model on digits, as `vix train` would make it."""
    config = recipe("digits", MODEL)
    smaller = {**config.model_fields, "depth": 3, "dim": 48}
    config = dataclasses.replace(config, epochs=EPOCHS, warmup_epochs=1, model_fields=smaller)
    with tempfile.TemporaryDirectory() as folder:
        train(config, folder, on_epoch=lambda row: print(end=".", flush=True))
        print()
        return Run.load(folder)


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "attention_maps.png"
    run = trained()
    split = load_dataset("digits").test
    image, label = split.images[1], split.labels[1]  # (8, 8, 1) uint8
    read = run.predict(image[None])[0].argmax()

    layers, rollout = run.attention(image)  # what the class token takes from each pixel
    title = f"{MODEL} reads this {run.classes[label]} as {run.classes[read]}"
    plot_attention(path, image, layers, rollout, title)

    # The same by hand, in three steps: the maps, all layers in one, and where they lie.
    maps = vix.attention_maps(run.model, run.variables, run.augment(image[None]))
    flow = vix.attention_rollout(maps)
    seen = vix.over_image(run.model, flow, image.shape[:2])[0]
    row, column = divmod(int(seen.argmax()), seen.shape[1])
    print(f"{title}, and takes most from row {row + 1}, column {column + 1}")
    _, count, heads, n, _ = maps.shape
    print(f"{path}: {count} layers of {heads} heads, {n} × {n} each, and their rollout")


if __name__ == "__main__":
    main()
