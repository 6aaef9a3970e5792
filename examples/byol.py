"""A backbone learns from pairs of views of unlabelled digits, and a nearest neighbour reads them.

    python examples/byol.py

Takes about 30 seconds on 2 cores. A label is used only to look at what was learned.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vix_flax as vix
from vix_flax.data import Augment, TrainBatches, TwoViews, load_dataset
from vix_flax.training import OwnLoss, create_state, train_step

STEPS = 400


def neighbour_accuracy(model, variables, data):
    """How often the most similar training image has a test image's label."""
    normalize = Augment(data.mean, data.std)

    @jax.jit
    def features(images):
        pooled = model.clone(num_classes=0).apply(variables, normalize(images))
        return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)

    nearest = (features(data.test.images) @ features(data.train.images).T).argmax(axis=1)
    return np.mean(data.train.labels[nearest] == data.test.labels)


def main():
    data = load_dataset("digits")
    model = vix.ViT(
        image_size=8, patch_size=2, channels=1, num_classes=10, dim=48, depth=2, heads=3,
        dim_head=16, mlp_dim=96, pool="mean",
    )  # fmt: skip
    learner = vix.BYOL(net=model, projection_size=32, projection_hidden_size=128)
    # The slow copy follows what the step before has made of the online encoder.
    follow = partial(vix.update_target, decay=learner.moving_average_decay)
    objective = OwnLoss(views=2, mutable=("batch_stats", "target"), prepare=follow)
    view = jnp.zeros((1, *data.image_shape))
    state = create_state(learner, (view, view), optax.adamw(1e-3))

    for step, batch in zip(range(STEPS + 1), TrainBatches(data.train, 128), strict=False):
        if step % (STEPS // 4) == 0:
            score = neighbour_accuracy(*learner.to_model(state.eval_variables), data)
        state, metrics = train_step(
            state, batch, augment=TwoViews(data.mean, data.std), objective=objective
        )
        if step % (STEPS // 4) == 0:
            loss = float(metrics["loss"])
            print(f"step {step:3}: loss {loss:.3f}, nearest neighbour {score:.1%}", flush=True)


if __name__ == "__main__":
    main()
