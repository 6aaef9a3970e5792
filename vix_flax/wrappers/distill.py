"""Distillation through a token: the student learns from labels and, by one more token, a teacher.

Touvron et al. 2020 (DeiT), arXiv:2012.12877. Any function of images can teach.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from vix_flax.layers import Dense, LayerNorm, field_names
from vix_flax.models import EfficientViT, T2TViT
from vix_flax.wrappers.unwrap import unwrapped
from vix_flax.zoo import DualNormViT


class Distillable(nn.Module):
    """What makes a ViT take a distillation token; without one it is the plain model exactly."""

    def __call__(
        self, img: jax.Array, distill_token: jax.Array | None = None, *, train: bool = False
    ) -> Any:
        """Logits `(b, num_classes)`; with a token `(1, dim)`, also what became of it, `(b, dim)`.

        The token stands last, has no position, and takes no part in pooling.
        """
        if distill_token is None:
            return super().__call__(img, train=train)
        tokens = self.tokens(img, train=train)
        token = jnp.broadcast_to(distill_token.astype(tokens.dtype), (len(tokens), 1, self.dim))
        token = self.emb_drop(token, train)
        encoded = self.encode(jnp.concatenate([tokens, token], axis=1), train=train)
        features = self.pooled(encoded[:, :-1])
        return (self.head(features) if self.num_classes else features), encoded[:, -1]

    def to_vit(self) -> nn.Module:
        """The plain model, which has the same variables."""
        plain = next(c for c in type(self).__mro__ if c.__module__ != __name__)
        fields = {name: getattr(self, name) for name in field_names(plain)}
        return plain(**fields, parent=None)


class DistillableViT(Distillable, DualNormViT, kw_only=True):
    """`DualNormViT` that can be distilled into (arXiv:2012.12877)."""


class DistillableT2TViT(Distillable, T2TViT, kw_only=True):
    """`T2TViT` that can be distilled into (arXiv:2012.12877)."""


class DistillableEfficientViT(Distillable, EfficientViT, kw_only=True):
    """`EfficientViT` that can be distilled into (arXiv:2012.12877)."""


class DistillWrapper(nn.Module, kw_only=True):
    """The loss of a student that learns from labels and a teacher: `(img, labels) -> ()`.

    The student's parameters are `params["student"]`, as the plain model has them; the token and
    its head belong to the wrapper.

    Attributes:
        student: a `Distillable…` model.
        teacher: images → logits `(b, classes)`; no gradient goes into it. None: logits are given
            with every call.
        temperature: softens both distributions, in soft distillation.
        alpha: share of the teacher in the loss.
        hard: learn the teacher's decisions instead of its probabilities.
        mlp_layernorm: a norm before the token's head.
    """

    student: nn.Module
    teacher: Callable[[jax.Array], jax.Array] | None = None
    temperature: float = 1.0
    alpha: float = 0.5
    hard: bool = False
    mlp_layernorm: bool = False

    def __post_init__(self):
        if not isinstance(self.student, Distillable):
            raise ValueError(
                f"student={type(self.student).__name__} takes no distillation token: use "
                "DistillableViT, DistillableT2TViT or DistillableEfficientViT"
            )
        _check(self.temperature, self.alpha)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        img: jax.Array,
        labels: jax.Array,
        temperature: float | None = None,
        alpha: float | None = None,
        *,
        teacher_logits: jax.Array | None = None,
        train: bool = False,
        with_logits: bool = False,
    ) -> Any:
        """The loss, in nats; `with_logits`: also the student's logits and those of its token.

        Args:
            img: `(b, H, W, C)`.
            labels: `(b,)` int.
            temperature, alpha: instead of the wrapper's.
            teacher_logits: `(b, classes)`, instead of asking the teacher.
            train: as everywhere.
            with_logits: returns `(loss, (logits, distill_logits))`.

        Raises:
            ValueError: there is no teacher and no logits of one.
        """
        temperature = self.temperature if temperature is None else temperature
        alpha = self.alpha if alpha is None else alpha
        _check(temperature, alpha)
        if teacher_logits is None:
            if self.teacher is None:
                raise ValueError("give a teacher to the wrapper, or teacher_logits to the call")
            teacher_logits = self.teacher(img)
        teacher_logits = jax.lax.stop_gradient(teacher_logits)

        shape = (1, self.student.dim)
        token = self.param("distillation_token", nn.initializers.normal(1.0), shape)
        logits, asked = self.student(img, token, train=train)
        if self.mlp_layernorm:
            asked = LayerNorm(name="distill_norm")(asked)
        distill_logits = Dense(logits.shape[-1], name="distill_mlp")(asked).astype(jnp.float32)

        base = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        if self.hard:
            decided = teacher_logits.argmax(axis=-1)
            taught = optax.softmax_cross_entropy_with_integer_labels(distill_logits, decided).mean()
        else:
            wanted = jax.nn.log_softmax(teacher_logits / temperature)
            got = jax.nn.log_softmax(distill_logits / temperature)
            taught = optax.losses.kl_divergence_with_log_targets(got, wanted).mean()
            taught = temperature**2 * taught
        loss = (1 - alpha) * base + alpha * taught
        return (loss, (logits, distill_logits)) if with_logits else loss

    def to_vit(self, variables: dict) -> tuple[nn.Module, dict]:
        """The plain model and its variables, out of this wrapper's."""
        return self.student.to_vit(), unwrapped(variables, "student")


def _check(temperature, alpha):
    if not temperature > 0:
        raise ValueError(f"temperature={temperature!r} must be positive")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha!r} must be from 0 to 1, the teacher's share of the loss")
