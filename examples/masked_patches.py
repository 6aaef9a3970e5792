"""A ViT guesses masked patches of all digits, then learns what they are from 100 labels.

    python examples/masked_patches.py

Takes about 30 seconds on 2 cores. Beside it the same model learns from the 100 labels alone. It
shows how: on images of 16 patches, seen so briefly, the guesses help little yet.
"""

import jax.numpy as jnp
import optax

import vix_flax as vix
from vix_flax.data import Augment, Split, TrainBatches, eval_batches, load_dataset
from vix_flax.training import OwnLoss, create_state, evaluate, train_step

GUESSING, LABELLED = 800, 150  # steps


def main():
    data = load_dataset("digits")
    augment = Augment(data.mean, data.std, crop_padding=1)
    image = jnp.zeros((1, *data.image_shape))
    model = vix.ViT(
        image_size=8, patch_size=2, channels=1, num_classes=10, dim=48, depth=3, heads=3,
        dim_head=16, mlp_dim=96,
    )  # fmt: skip
    learner = vix.MPP(
        transformer=model, patch_size=2, dim=48, channels=1, mask_prob=0.3,
        mean=data.mean, std=data.std,
    )  # fmt: skip

    def trained(state, split, steps, **given):
        """The last state, and the mean loss of the first and the last tenth of the steps."""
        losses = []
        for _, batch in zip(range(steps), TrainBatches(split, batch_size=50), strict=False):
            state, metrics = train_step(state, batch, augment=augment, **given)
            losses.append(metrics["loss"])
        tenth = steps // 10
        return state, jnp.stack(losses[:tenth]).mean(), jnp.stack(losses[-tenth:]).mean()

    state = create_state(learner, image, optax.adamw(2e-3))
    objective = OwnLoss(streams=("mask",))
    state, first, last = trained(state, data.train, GUESSING, objective=objective)
    print(f"masked patches: loss {first:.3f}, after {GUESSING} steps {last:.3f}", flush=True)

    _, variables = learner.to_model(state.eval_variables)
    few = Split(data.train.images[:100], data.train.labels[:100])
    for name, start in (("100 labels alone", None), ("after masked patches", variables)):
        state = create_state(model, image, optax.adamw(1e-3), variables=start)
        state, _, _ = trained(state, few, LABELLED)
        batches = eval_batches(data.test, 256)
        score = evaluate(state.eval_variables, batches, model.apply, augment)
        print(f"{name:22}test accuracy {score['accuracy']:.1%}", flush=True)


if __name__ == "__main__":
    main()
