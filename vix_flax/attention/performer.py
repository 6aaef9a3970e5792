"""Performer (FAVOR+): softmax attention by random positive features, never forming n × m scores.

Choromanski et al. 2020, arXiv:2009.14794. Cost O((n + m)·r·(d + e)) for r features.
q (b, n, h, d), k (b, m, h, d), v (b, m, h, e) -> (b, n, h, e)
"""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from vix_flax.attention.linear import kernel_attention, kernel_factors
from vix_flax.attention.products import along_rows
from vix_flax.attention.tiled import head_by_head
from vix_flax.checks import require_positive_ints


class Performer(nn.Module):
    """φ(u) = exp(d^-¼ W u − |u|²/(2√d) − c) + ε, with c a maximum that keeps exp in range; the
    published factor r^-½ would cancel.

    The directions W `(r, d)` are drawn once, at `init`, from the `features` stream (from `params`
    where there is none) into the collection `features`: not trained, saved with checkpoints,
    redrawn only by `redraw_features`.

    By default c is taken per (image, head) and has no gradient. `reference=True` takes the keys'
    maximum over the whole batch and differentiates through it, as published: an image's result
    then depends on its batch mates.
    """

    nb_features: int | None = None  # None: int(d ln d)
    kernel_epsilon: float = 1e-4
    reference: bool = False
    dtype: Any = None

    rows_are_independent: ClassVar[bool] = True

    def __post_init__(self):
        require_positive_ints(self, "nb_features")
        super().__post_init__()

    @nn.compact
    def __call__(
        self, q: jax.Array, k: jax.Array, v: jax.Array, *, train: bool = False
    ) -> jax.Array:
        d = q.shape[-1]
        r = int(d * math.log(d)) if self.nb_features is None else self.nb_features
        if r < 1:
            raise ValueError(f"nb_features={r} for head width {d}: at least 1 feature is needed")
        directions = self.variable(
            "features", "projection", lambda: orthogonal_features(self.make_rng("features"), r, d)
        ).value
        attend = lambda q, k, v: kernel_attention(*self._both(q, k, directions), v)
        if self.reference:  # its maximum is one of all images and heads
            return attend(q, k, v)
        # The features are by far the largest arrays, and so are their gradients: on a CPU, fresh
        # memory for them in every call took half of the time, more than forming them twice.
        return head_by_head(attend, q, k, v, 2 * 4 * r * (q.shape[1] + k.shape[1]))

    def factors(self, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        """φ(q) over its normaliser `(b, h, n, r)` and φ(k)ᵀ `(b, h, r, m)`."""
        return kernel_factors(*self._both(q, k, self.get_variable("features", "projection")))

    def _both(self, q, k, directions):
        key_axes = (0, 1, 2, 3) if self.reference else (2, 3)
        return self._features(q, directions, (3,)), self._features(k, directions, key_axes)

    def _features(self, u, directions, stabiliser_axes):
        """u (b, n, h, d) -> positive features (b, h, n, r), float32."""
        d = directions.shape[1]
        shape = (*u.swapaxes(1, 2).shape[:-1], -1)
        u = u.swapaxes(1, 2).reshape(-1, d)
        # The scale d^-¼ goes into the small matrix, and exp is formed once.
        projected = u @ (directions.T * d**-0.25).astype(u.dtype)
        projected = projected.astype(jnp.float32)
        stabiliser = projected.reshape(shape).max(axis=stabiliser_axes, keepdims=True)
        if not self.reference:
            stabiliser = jax.lax.stop_gradient(stabiliser)
        # Of rows, as the product has them: of four axes XLA's CPU sums five times as long.
        norm = jnp.square(u.astype(jnp.float32)).sum(axis=-1) * (0.5 * d**-0.5)
        shift = norm + jnp.broadcast_to(stabiliser, (*shape[:-1], 1)).reshape(-1)
        features = jnp.exp(projected - along_rows(shift, len(directions))) + self.kernel_epsilon
        return features.reshape(shape)


def orthogonal_features(key: jax.Array, r: int, d: int) -> jax.Array:
    """r random directions `(r, d)` float32: orthogonal in blocks of d, as long as Gaussian ones.

    Signs are those that make every direction alike likely: QR as LAPACK leaves it prefers some, and
    more features would then approach something else than softmax.
    """
    direction_key, length_key = jax.random.split(key)
    q, upper = jnp.linalg.qr(jax.random.normal(direction_key, (-(-r // d), d, d)))
    q = q * jnp.sign(jnp.diagonal(upper, axis1=1, axis2=2))[:, None, :]
    directions = q.swapaxes(1, 2).reshape(-1, d)[:r]
    lengths = jnp.linalg.norm(jax.random.normal(length_key, (r, d)), axis=1, keepdims=True)
    return directions * lengths


def redraw_features(variables: dict, key: jax.Array) -> dict:
    """The same variables with every layer's Performer features drawn anew from `key`.

    Raises:
        ValueError: there are no features to redraw.
    """
    if "features" not in variables:
        raise ValueError("these variables hold no 'features': the model has no Performer attention")
    leaves, structure = jax.tree.flatten(variables["features"])
    keys = jax.random.split(key, len(leaves))
    drawn = [orthogonal_features(k, *leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return {**variables, "features": jax.tree.unflatten(structure, drawn)}
