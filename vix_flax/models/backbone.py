"""What every backbone is: four verbs in a chain, and the fields that all of them have."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from vix_flax.attention import Softmax
from vix_flax.checks import require_num_classes, require_positive_ints
from vix_flax.layers import ModuleDef, build_attention
from vix_flax.models.image import check_dtype


class Backbone(nn.Module, kw_only=True):
    """`tokens(img)`, `encode(tokens)`, `pooled(tokens)`, `head(features)`: wrappers use these.

    A subclass defines the verbs, `check` and `num_features`. Every field is a plain value (lists
    and dicts are made tuples and frozen), so models compare, hash, pickle and serve as static
    arguments.

    Attributes:
        num_classes: 0 gives the pooled features `(b, num_features)` instead of logits.
        channels: of the image.
        dtype: of the computation, e.g. `jnp.bfloat16`; parameters, softmax and norms stay float32.
        remat: recompute each block in the backward pass instead of keeping its activations.
    """

    num_classes: int
    channels: int = 3
    dtype: Any = None
    remat: bool = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.init and field.name not in ("parent", "name"):
                setattr(self, field.name, _hashable(getattr(self, field.name)))
        self.check()
        super().__post_init__()

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        require_positive_ints(self, "channels")
        require_num_classes(self)
        check_dtype(self.dtype)

    @property
    def num_features(self) -> int:
        """Width of the pooled features."""
        raise NotImplementedError

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of each map that parameters depend on the size of, in order."""
        return ()

    def map_of(self, path: tuple[str, ...]) -> int | None:
        """Which of `grids` the parameter at `path` belongs to, if it has an entry a position."""
        return 0 if self.grids else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of this combination of fields."""
        return ()

    def rematted(self, block: ModuleDef) -> ModuleDef:
        """A block class, recomputed in the backward pass if the model says `remat`.

        Its `train` is an argument by position, because remat traces keywords.
        """
        return nn.remat(block, static_argnums=(2,)) if self.remat else block

    def __call__(self, img: jax.Array, *, train: bool = False) -> Any:
        """Logits `(b, num_classes)`, float32, of images `(b, H, W, C)`; features if no classes."""
        features = self.pooled(self.encode(self.tokens(img, train=train), train=train))
        return self.head(features) if self.num_classes else features


class MapBackbone(Backbone, kw_only=True):
    """A backbone whose `encode` ends on a map: the mean over it, and a dense `classifier`."""

    def pooled(self, tokens: jax.Array) -> jax.Array:
        """`(b, h, w, c) -> (b, c)`: the mean over the map."""
        return tokens.mean(axis=(1, 2), dtype=jnp.float32).astype(tokens.dtype)

    def head(self, features: jax.Array) -> jax.Array:
        """`(b, c) -> (b, num_classes)` float32."""
        return self.classifier(features).astype(jnp.float32)


class AttentionBackbone(Backbone, kw_only=True):
    """A backbone that attends, by any core.

    Attributes:
        attention: the core, e.g. `Nystrom`.
        attention_options: fields of the core that the model has no field for.
        reference: reproduce the published code's numbers, faults included.
    """

    attention: ModuleDef = Softmax
    attention_options: Mapping[str, Any] = FrozenDict()
    reference: bool = False

    def check(self) -> None:
        """Raises ValueError for fields that cannot work (together)."""
        super().check()
        if not isinstance(self.attention_options, Mapping):
            raise ValueError(f"attention_options={self.attention_options!r} must be a mapping")
        self.core()
        usual = type(self).__dataclass_fields__["attention"].default
        if self.fixed_attention and (self.attention is not usual or self.attention_options):
            raise ValueError(f"attention has no effect here: {self.fixed_attention}")

    @property
    def fixed_attention(self) -> str:
        """Why `attention` cannot be chosen; empty where it can."""
        return ""

    def core(self, **given: Any) -> nn.Module:
        """A new core; see `build_attention`."""
        return build_attention(self, **given)

    def without_bias(self, what: str) -> tuple[str, ...]:
        """A note, if the attention forms no scores that a bias could be added to."""
        if getattr(self.core(), "takes_bias", False):
            return ()
        return (f"this attention has no scores to add to: {what} is left out",)


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(v) for v in value)
    if isinstance(value, Mapping):
        return FrozenDict({name: _hashable(v) for name, v in value.items()})
    return value
