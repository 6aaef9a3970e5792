"""Cross-entropy against smoothed labels, and accuracy."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Loss of each image, `(b, classes)` and `(b,)` int -> `(b,)` float32, in nats.

    The target is 1 − `smoothing` on the label and `smoothing` spread evenly over all classes
    (arXiv:1512.00567). Labels may be soft, too: `(b, classes)` float.
    """
    targets = labels if labels.ndim == 2 else jax.nn.one_hot(labels, logits.shape[-1])
    targets = optax.smooth_labels(targets, smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images `(b, classes)` whose largest logit is the label's, `(b,)` int -> `()`.

    Of soft labels `(b, classes)` the largest counts.
    """
    labels = labels.argmax(axis=-1) if labels.ndim == 2 else labels
    return (logits.argmax(axis=-1) == labels).mean()
