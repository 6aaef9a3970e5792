"""What every backbone is: four verbs in a chain. Those that end on a map share the last two."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class Backbone(nn.Module):
    """`tokens(img)`, `encode(tokens)`, `pooled(tokens)`, `head(features)`: wrappers use these.

    A subclass has a field `num_classes`, and defines the verbs.
    """

    def __call__(self, img: jax.Array, *, train: bool = False) -> Any:
        """Logits `(b, num_classes)`, float32, of images `(b, H, W, C)`; features if no classes."""
        features = self.pooled(self.encode(self.tokens(img, train=train), train=train))
        return self.head(features) if self.num_classes else features


class MapBackbone(Backbone):
    """A backbone whose `encode` ends on a map: the mean over it, and a dense `classifier`."""

    def pooled(self, tokens: jax.Array) -> jax.Array:
        """`(b, h, w, c) -> (b, c)`: the mean over the map."""
        return tokens.mean(axis=(1, 2), dtype=jnp.float32).astype(tokens.dtype)

    def head(self, features: jax.Array) -> jax.Array:
        """`(b, c) -> (b, num_classes)` float32."""
        return self.classifier(features).astype(jnp.float32)
