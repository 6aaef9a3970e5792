"""A model that returns its attention maps beside its logits, as vit-pytorch's Recorder."""

from typing import Any

import jax
from flax import linen as nn

from vix_flax.attention_maps import attention_maps


class Recorder:
    """`apply(variables, img)` gives `(logits, maps)`; `eject()` gives the model back.

    The variables are the model's own, and so are the logits. Maps are those of `attention_maps`:
    `(b, layers, h, n, n)`, after the softmax and before dropout.
    """

    def __init__(self, model: nn.Module):
        self._model = model

    def init(self, rngs: Any, img: jax.Array) -> dict:
        """The model's variables."""
        return self._attached().init(rngs, img)

    def apply(self, variables: dict, img: jax.Array, **given: Any) -> tuple[Any, Any]:
        """Logits, as `model.apply` returns them, and maps."""
        model = self._attached()
        return model.apply(variables, img, **given), attention_maps(model, variables, img)

    def eject(self) -> nn.Module:
        """The model; this recorder is of no use any more."""
        model, self._model = self._attached(), None
        return model

    def _attached(self):
        if self._model is None:
            raise ValueError("this recorder has been ejected: make a new one with Recorder(model)")
        return self._model
