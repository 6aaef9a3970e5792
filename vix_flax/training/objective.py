"""What a training step makes small: a frozen value, called with the model's `apply`.

`objective(apply_fn, variables, images, labels, rngs, context) -> (loss, (metrics, updates))`:
metrics are scalars by name, updates the collections that the step has changed. One whose loss and
metrics are means over images says `mean_over_images`: a step may work through a batch in parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from vix_flax.training.blocks_once import blocks_traced_once
from vix_flax.training.loss import accuracy, cross_entropy

Outputs = tuple[jax.Array, tuple[dict, dict]]


@dataclass(frozen=True)
class Classify:
    """Cross-entropy against labels, smoothed by `smoothing`."""

    smoothing: float = 0.0

    mean_over_images: ClassVar[bool] = True

    @blocks_traced_once()
    def __call__(self, apply_fn, variables, images, labels, rngs, context=None) -> Outputs:
        """The loss, `accuracy`, and updated collections."""
        logits, updates = apply_fn(
            variables, images, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        loss = cross_entropy(logits, labels, self.smoothing).mean()
        return loss, ({"accuracy": accuracy(logits, labels)}, updates)


@dataclass(frozen=True)
class Distill:
    """Cross-entropy against labels and, by `alpha`, against a teacher (arXiv:1503.02531).

    `context` holds the teacher's variables; it sees the student's augmented images, in evaluation.

    Attributes:
        teacher: its `apply`.
        hard: learn the teacher's decisions instead of its probabilities.
        temperature: softens both distributions, in soft distillation.
        alpha: the teacher's share of the loss.
        smoothing: of the labels.
        blocks: weight of the mean squared difference of every block's output, for a student of
            the teacher's shape; 0: outputs alone count.
        outputs: `(apply_fn, variables, images, **given) -> (logits, updates, block outputs)`.
    """

    teacher: Callable[..., Any]
    outputs: Callable[..., tuple[Any, dict, list[jax.Array]]]
    hard: bool = False
    temperature: float = 1.0
    alpha: float = 0.5
    smoothing: float = 0.0
    blocks: float = 0.0

    mean_over_images: ClassVar[bool] = True

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature!r} must be positive")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha!r} must be from 0 to 1")

    def __call__(self, apply_fn, variables, images, labels, rngs, context) -> Outputs:
        """The loss, `accuracy`, and updated collections."""
        given = dict(train=True, rngs=rngs, mutable=["batch_stats"])
        logits, updates, ours = self.outputs(apply_fn, variables, images, **given)
        wanted, _, theirs = self.outputs(self.teacher, context, images, mutable=[])
        loss = (1 - self.alpha) * cross_entropy(logits, labels, self.smoothing).mean()
        loss += self.alpha * self.from_teacher(logits, jax.lax.stop_gradient(wanted))
        if self.blocks:
            differences = [
                jnp.square(a.astype(jnp.float32) - jax.lax.stop_gradient(b)).mean()
                for a, b in zip(ours, theirs, strict=True)
            ]
            loss += self.blocks * sum(differences) / len(differences)
        return loss, ({"accuracy": accuracy(logits, labels)}, updates)

    def from_teacher(self, logits: jax.Array, wanted: jax.Array) -> jax.Array:
        """The teacher's part: cross-entropy with its decisions, or T² KL of its probabilities."""
        if self.hard:
            return cross_entropy(logits, wanted.argmax(axis=-1)).mean()
        t = self.temperature
        ours, theirs = (jax.nn.log_softmax(x / t) for x in (logits, wanted))
        return t**2 * optax.losses.kl_divergence_with_log_targets(ours, theirs).mean()


@dataclass(frozen=True)
class OwnLoss:
    """What the module itself returns for the views of a batch: `apply(variables, *views) -> ()`.

    Labels are not looked at.

    Attributes:
        views: how many a batch has; more than one come stacked, `(views, b, h, w, c)`.
        streams: of random numbers that the module draws from, beside dropout.
        mutable: collections that a step changes.
        prepare: variables → variables, before each step.
    """

    views: int = 1
    streams: tuple[str, ...] = ()
    mutable: tuple[str, ...] = ("batch_stats",)
    prepare: Callable[[dict], dict] | None = None

    def __call__(self, apply_fn, variables, images, labels, rngs, context=None) -> Outputs:
        """The loss, no metrics, and updated collections."""
        if self.prepare is not None:
            variables = self.prepare(variables)
        loss, updates = apply_fn(
            variables, *self._views(images), train=True, mutable=list(self.mutable),
            rngs={**rngs, **self._draws(rngs["dropout"])},
        )  # fmt: skip
        return loss, ({}, updates)

    def evaluate(self, apply_fn, variables, images) -> jax.Array:
        """The loss with the same draws every time, and nothing changed."""
        return apply_fn(variables, *self._views(images), rngs=self._draws(jax.random.key(0)))

    def _views(self, images):
        return (images,) if self.views == 1 else tuple(images)

    def _draws(self, key):
        return {name: jax.random.fold_in(key, i) for i, name in enumerate(self.streams)}
