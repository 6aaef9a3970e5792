"""A small ResNet teaches a ViT through a distillation token (DeiT, arXiv:2012.12877).

    python examples/distill.py

Takes about 35 seconds on 2 cores. Trains the teacher on the embedded digits, then the same student
twice: on labels alone, and beside them on the teacher's probabilities. Any function of images can
teach; here it is a Flax module. It shows how: on so few images, seen so briefly, a student gains
nothing from its teacher yet.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import vix_flax as vix
from vix_flax.data import Augment, TrainBatches, eval_batches, load_dataset
from vix_flax.training import create_state, evaluate, train_step


class ResNet(nn.Module):
    """Residual blocks of two 3 × 3 convolutions, the map halved before the second half."""

    width: int = 24
    blocks: int = 4
    num_classes: int = 10

    @nn.compact
    def __call__(self, img, *, train=False):
        def conv_norm(x, width, strides=1):
            x = nn.Conv(width, (3, 3), strides, use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)

        x = nn.relu(conv_norm(img, self.width))
        for block in range(self.blocks):
            strides = 2 if block == self.blocks // 2 else 1
            width = self.width * (2 if block >= self.blocks // 2 else 1)
            branch = conv_norm(nn.relu(conv_norm(x, width, strides)), width)
            if branch.shape != x.shape:
                x = nn.Conv(width, (1, 1), strides, use_bias=False)(x)
            x = nn.relu(x + branch)
        return nn.Dense(self.num_classes)(x.mean(axis=(1, 2)))


def with_its_token(distiller):
    """Images → what both heads of the student say together, as DeiT is evaluated.

    `distiller.to_vit(variables)` gives the plain model instead, which does without the token.
    """

    def apply(variables, img):
        nothing = jnp.zeros((len(img), 10))
        _, heads = distiller.apply(
            variables, img, jnp.zeros(len(img), jnp.int32), teacher_logits=nothing, with_logits=True
        )
        return sum(map(jax.nn.log_softmax, heads))

    return apply


def optimizer(data, epochs, batch):
    steps = epochs * (len(data.train) // batch)
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 4e-3, steps // 10, steps))


def train_teacher(data, augment, epochs, batch=32):
    """Our training step takes any module with `train=` and its collections."""
    teacher = ResNet()
    image = jnp.zeros((1, *data.image_shape))
    state = create_state(teacher, image, optimizer(data, epochs, batch))
    batches = TrainBatches(data.train, batch, seed=0)
    for epoch in range(epochs):
        for images in batches.epoch(epoch):
            state, _ = train_step(state, images, augment=augment)
    return teacher, state.eval_variables


def train_student(data, augment, epochs, teacher=None, batch=32):
    """With a teacher (images → logits) through a token, else on labels alone."""
    student = vix.DistillableViT(
        image_size=8, patch_size=2, channels=1, num_classes=10, dim=48, depth=3, heads=3,
        dim_head=16, mlp_dim=96, dropout=0.1, pool="mean",
    )  # fmt: skip
    taught = {"teacher": teacher, "alpha": 0.3, "temperature": 2.0}
    alone = {"teacher": lambda img: jnp.zeros((len(img), 10)), "alpha": 0.0}
    distiller = vix.DistillWrapper(student=student, **(alone if teacher is None else taught))
    tx = optimizer(data, epochs, batch)
    image, label = jnp.zeros((1, *data.image_shape)), jnp.zeros(1, jnp.int32)
    variables = jax.jit(distiller.init)(jax.random.key(1), image, label)
    params, opt_state = variables["params"], jax.jit(tx.init)(variables["params"])

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, opt_state, images, key):
        augment_key, dropout_key = jax.random.split(key)
        img = augment(images["image"], augment_key)

        def loss_of(params):
            rngs = {"dropout": dropout_key}
            return distiller.apply({"params": params}, img, images["label"], train=True, rngs=rngs)

        updates, opt_state = tx.update(jax.grad(loss_of)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    key, batches = jax.random.key(2), TrainBatches(data.train, batch, seed=1)
    for epoch in range(epochs):
        for images in batches.epoch(epoch):
            key, step_key = jax.random.split(key)
            params, opt_state = step(params, opt_state, images, step_key)
    return distiller, {"params": params}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=16)
    epochs = parser.parse_args().epochs  # of the student; the teacher learns faster
    data = load_dataset("digits")
    augment = Augment(data.mean, data.std, crop_padding=1)

    def show(name, apply, variables):
        score = evaluate(variables, eval_batches(data.test, 128), apply, augment)["accuracy"]
        print(f"{name:24}{score:.1%} on test", flush=True)

    teacher, variables = train_teacher(data, augment, max(1, epochs // 4))
    show("teacher (ResNet)", teacher.apply, variables)
    distiller, alone = train_student(data, augment, epochs)
    vit, alone = distiller.to_vit(alone)
    show("student, labels alone", vit.apply, alone)
    distiller, taught = train_student(data, augment, epochs, partial(teacher.apply, variables))
    show("student, taught", with_its_token(distiller), taught)


if __name__ == "__main__":
    main()
