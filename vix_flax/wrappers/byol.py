"""BYOL: learn without labels by predicting what a slow copy of the model sees in another view.

Grill et al. 2020, arXiv:2006.07733, as byol-pytorch trains it. The copy is a moving average and
gets no gradient; batches need two images or more, because representations are batch-normalised.
"""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.core import unfreeze

from vix_flax.checks import require_positive_ints
from vix_flax.layers import BatchNorm, Dense
from vix_flax.wrappers.unwrap import unwrapped


class BatchNormMlp(nn.Module):
    """Dense, BatchNorm, ReLU, dense: `(b, c) -> (b, features)`."""

    hidden: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = BatchNorm(name="norm")(Dense(self.hidden, name="dense1")(x), not train)
        return Dense(self.features, name="dense2")(nn.relu(x))


class SimplicialEmbedding(nn.Module):
    """`(b, c) -> (b, simplices · dim)`: dense, BatchNorm, softmax within groups.

    Lavoie et al. 2022, arXiv:2204.00616.
    """

    simplices: int
    dim: int
    temperature: float = 0.1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = Dense(self.simplices * self.dim, name="dense")(x)
        x = BatchNorm(name="norm")(x, not train)
        groups = x.reshape(len(x), self.simplices, self.dim) / self.temperature
        return nn.softmax(groups).reshape(x.shape)


class Encoder(nn.Module):
    """A backbone and its projector: images `(b, H, W, C)` -> `(b, projection_size)`."""

    net: nn.Module
    projection_size: int
    projection_hidden_size: int
    simplices: int
    simplex_dim: int

    @nn.compact
    def __call__(self, img: jax.Array, train: bool = False) -> jax.Array:
        net = self.net
        if self.is_initializing():
            net(img)  # the head, too, so that the plain model finds all it has
        features = net.pooled(net.encode(net.tokens(img, train=train), train=train))
        if self.simplices:
            simplicial = SimplicialEmbedding(self.simplices, self.simplex_dim, name="simplicial")
            features = simplicial(features, train)
        projector = BatchNormMlp(
            self.projection_hidden_size, self.projection_size, name="projector"
        )
        return projector(features, train)


class BYOL(nn.Module, kw_only=True):
    """The loss between two views of the same images: `(b, H, W, C)` twice `-> ()`.

    `params["online"]["net"]` is the backbone's, as the plain model has it. The slow copy is in the
    collection `target`, not trained: after every optimizer step put `update_target(variables,
    moving_average_decay)` in its place. Training needs `mutable=["batch_stats"]`.

    Attributes:
        net: any backbone; the representation is what it pools, before the head.
        projection_size, projection_hidden_size: of projector and predictor.
        moving_average_decay: of the slow copy.
        simplices, simplex_dim: groups of the simplicial embedding before the projector; 0: none.
        joint_views: both views go through the online encoder as one batch, so that BatchNorm sees
            them together.
    """

    net: nn.Module
    projection_size: int = 256
    projection_hidden_size: int = 4096
    moving_average_decay: float = 0.99
    simplices: int = 0
    simplex_dim: int = 8
    joint_views: bool = False

    def __post_init__(self):
        require_positive_ints(self, "projection_size", "projection_hidden_size", "simplex_dim")
        if not 0 <= self.moving_average_decay <= 1:
            raise ValueError(
                f"moving_average_decay={self.moving_average_decay!r} must be from 0 to 1"
            )
        super().__post_init__()

    def _encoder(self):
        sizes = (self.projection_size, self.projection_hidden_size)
        net = self.net.clone(parent=None, name=None)
        return Encoder(net, *sizes, self.simplices, self.simplex_dim, parent=None)

    @nn.compact
    def __call__(self, view1: jax.Array, view2: jax.Array, *, train: bool = False) -> jax.Array:
        """2 − 2 cos between prediction and target, both ways, averaged over images.

        Raises:
            ValueError: a single image in training, whose batch statistics mean nothing.
        """
        if train and len(view1) == 1:
            raise ValueError("BYOL trains on 2 images or more: a batch of 1 has no statistics")
        online = self._encoder().clone(parent=self, name="online")
        sizes = (self.projection_hidden_size, self.projection_size)
        predictor = BatchNormMlp(*sizes, name="predictor")
        if self.joint_views:
            seen = predictor(online(jnp.concatenate([view1, view2]), train), train)
            predicted1, predicted2 = jnp.split(seen, 2)
        else:
            projected = [online(view, train) for view in (view1, view2)]
            predicted1, predicted2 = (predictor(p, train) for p in projected)
        wanted1, wanted2 = self._targets(online.variables, view1, view2, train)
        loss = cosine_loss(predicted1, wanted2) + cosine_loss(predicted2, wanted1)
        return loss.mean()

    def to_model(self, variables: dict) -> tuple[nn.Module, dict]:
        """The plain model and its variables, out of this wrapper's."""
        return self.net, unwrapped(variables, "online", "net")

    def _targets(self, online, view1, view2, train):
        """What the slow copy makes of both views; it keeps its own running statistics."""
        views = [jnp.concatenate([view1, view2])] if self.joint_views else [view1, view2]
        encoder = self._encoder()
        held = self.variable("target", "encoder", lambda: unfreeze(online))
        state, outs = held.value, []
        for view in views:
            # The copy drops out as the online encoder does, by draws of its own.
            rngs = {"dropout": self.make_rng("dropout")} if self.has_rng("dropout") else {}
            out, updates = encoder.apply(
                state, view, train, mutable=["batch_stats"] if train else [], rngs=rngs
            )
            state = {**state, **updates}
            outs.append(jax.lax.stop_gradient(out))
        if train and self.is_mutable_collection("target"):
            held.value = state
        return jnp.split(outs[0], 2) if self.joint_views else outs


def cosine_loss(x: jax.Array, y: jax.Array) -> jax.Array:
    """2 − 2 cos of rows, `(b, c)` twice -> `(b,)`."""
    return 2 - 2 * optax.losses.cosine_similarity(x, y, epsilon=1e-12)


def update_target(variables: dict, decay: float) -> dict:
    """The variables with the slow copy moved towards the online encoder; statistics are left alone.

    t ← decay · t + (1 − decay) · o for every parameter.
    """
    target = variables["target"]["encoder"]
    online = variables["params"]["online"]
    moved = optax.incremental_update(online, target["params"], 1 - decay)
    return {**variables, "target": {"encoder": {**target, "params": moved}}}
