"""A training loop of your own, around a jitted step of optax: no `vix_flax.training`.

    python examples/own_train_loop.py

Takes about 20 seconds on 2 cores. Models are plain Flax modules: paste it and change what you like.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vix_flax as vix
from vix_flax.data import load_dataset

EPOCHS, BATCH = 10, 32

data = load_dataset("digits")
model = vix.create_model(
    "vip", image_size=8, channels=1, patch_size=2, dim=48, depth=2, mlp_dim=96, dropout=0.1
)
tx = optax.adamw(optax.cosine_decay_schedule(1e-3, EPOCHS * (len(data.train) // BATCH)))


def normalize(images):
    return (images / 255.0 - jnp.array(data.mean)) / jnp.array(data.std)


@partial(jax.jit, donate_argnums=(0, 1))
def step(params, opt_state, rest, images, labels, key):
    def loss_of(params):
        logits, updates = model.apply(
            {"params": params, **rest}, normalize(images), train=True,
            rngs={"dropout": key}, mutable=["batch_stats"],
        )  # fmt: skip
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), updates

    (loss, updates), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    updated, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updated), opt_state, {**rest, **updates}, loss


def main():
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *data.image_shape)))
    params = variables.pop("params")
    rest, opt_state = variables, tx.init(params)  # rest: running statistics, random features
    key, rng = jax.random.key(1), np.random.default_rng(0)
    for epoch in range(EPOCHS):
        rows, losses = rng.permutation(len(data.train)), []
        for start in range(0, len(rows) - BATCH + 1, BATCH):
            chosen, key = rows[start : start + BATCH], jax.random.fold_in(key, start)
            images, labels = data.train.images[chosen], data.train.labels[chosen]
            params, opt_state, rest, loss = step(params, opt_state, rest, images, labels, key)
            losses.append(loss)
        print(f"epoch {epoch + 1:2}: loss {np.mean(losses):.3f}", flush=True)
    logits = jax.jit(model.apply)({"params": params, **rest}, normalize(data.test.images))
    print(f"test accuracy {np.mean(logits.argmax(axis=-1) == data.test.labels):.1%}")


if __name__ == "__main__":
    main()
