"""A model by name learns the embedded digits in a loop of one line, and reads a few of them.

    python examples/classify.py

Takes about 30 seconds on 2 cores. `vix train` does the same with everything around it.
"""

import jax
import jax.numpy as jnp

import vix_flax as vix
from vix_flax.data import Augment, TrainBatches, eval_batches, load_dataset
from vix_flax.training import (
    StepPrograms,
    create_state,
    evaluate,
    fit,
    make_optimizer,
    make_schedule,
)

EPOCHS = 12


def main():
    data = load_dataset("digits")
    model = vix.create_model(
        "vin", image_size=8, channels=1, patch_size=2, dim=64, depth=3, mlp_dim=128, num_landmarks=8
    )
    augment = Augment(data.mean, data.std, crop_padding=1)
    batches = TrainBatches(data.train, batch_size=32)
    steps = EPOCHS * batches.steps
    schedule = make_schedule("cosine", lr=3e-3, steps=steps, warmup_steps=steps // 10)
    tx = make_optimizer("adamw", schedule, weight_decay=0.05)
    state = create_state(model, jnp.zeros((1, *data.image_shape)), tx)
    step = StepPrograms(augment=augment)

    def score(variables, split=data.val):
        return evaluate(variables, eval_batches(split, 256), model.apply, augment)

    for latest, row in fit(state, EPOCHS, batches.epoch, score, step):
        print(f"step {latest.step:3}: validation accuracy {row['val_accuracy']:.1%}", flush=True)

    variables = latest.eval_variables
    logits = jax.jit(model.apply)(variables, augment(data.test.images[:10]))
    print("it reads  ", *(data.classes[label] for label in logits.argmax(axis=-1)))
    print("written is", *(data.classes[label] for label in data.test.labels[:10]))
    print(f"test accuracy {score(variables, data.test)['accuracy']:.1%}")


if __name__ == "__main__":
    main()
