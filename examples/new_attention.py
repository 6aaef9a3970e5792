"""An attention of your own, in one class and with no registration, trained in two backbones.

    python examples/new_attention.py

Takes about 20 seconds on 2 cores. CONTRIBUTING.md says how it becomes part of the library.
"""

import jax.numpy as jnp
import optax
from flax import linen as nn

import vix_flax as vix
from vix_flax.data import Augment, TrainBatches, eval_batches, load_dataset
from vix_flax.training import create_state, evaluate, train_step

STEPS = 200


class Cosine(nn.Module):
    """Softmax of the angles between queries and keys (Henry et al. 2020, arXiv:2010.04245).

    q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
    """

    temperature: float = 0.1

    @nn.compact
    def __call__(self, q, k, v, *, train=False):
        q, k = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
        inverse = self.param("inverse", nn.initializers.constant(1 / self.temperature), ())
        weights = nn.softmax(inverse * jnp.einsum("bnhd,bmhd->bhnm", q, k))
        return jnp.einsum("bhnm,bmhe->bnhe", weights, v)


def main():
    data = load_dataset("digits")
    augment = Augment(data.mean, data.std, crop_padding=1)
    sizes = dict(image_size=8, channels=1, dim=32, depth=2, heads=2, mlp_dim=64)
    models = {
        "tokens of 2 × 2 pixels": vix.ViT(
            **sizes, num_classes=10, patch_size=2,
            attention=Cosine, attention_options={"temperature": 0.2},
        ),
        "on a convolutional stem": vix.create_model("hybrid_vit", **sizes, attention=Cosine),
    }  # fmt: skip
    for name, model in models.items():
        tx = optax.adamw(optax.cosine_decay_schedule(3e-3, STEPS))
        state = create_state(model, jnp.zeros((1, *data.image_shape)), tx)
        for _, batch in zip(range(STEPS), TrainBatches(data.train, batch_size=32), strict=False):
            state, _ = train_step(state, batch, augment=augment)
        batches = eval_batches(data.test, 256)
        score = evaluate(state.eval_variables, batches, model.apply, augment)
        print(f"{name:24}test accuracy {score['accuracy']:.1%}", flush=True)


if __name__ == "__main__":
    main()
