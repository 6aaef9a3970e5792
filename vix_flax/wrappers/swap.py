"""Another attention in a trained model: every projection is kept, and fine-tuning does the rest.

What a new core has of its own starts where it changes least: Linformer's projections average
segments of the tokens, the Nyström convolution is zero, heads are not mixed, biases are zero, the
Performer draws its features.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from vix_flax.attention import ATTENTIONS
from vix_flax.layers import ModuleDef, field_names
from vix_flax.models import AttentionBackbone, EfficientViT, Transformer
from vix_flax.models.image import example_image
from vix_flax.suggest import did_you_mean


def swap_attention(
    model: nn.Module,
    variables: dict,
    to: str | ModuleDef,
    *,
    key: jax.Array | None = None,
    **options: Any,
) -> tuple[nn.Module, dict]:
    """The model with another attention, and variables that come as near to it as they can.

    Args:
        model: any that attends.
        variables: its own, trained.
        to: a name in `ATTENTIONS`, or a core.
        key: for what has to be drawn, as the Performer's features; None: seed 0.
        options: fields of the new attention (or of the model), e.g. `num_landmarks=64`.

    Raises:
        ValueError: an unknown attention or option, a model whose attention cannot be chosen, or
            more Linformer rows than tokens.
    """
    if isinstance(to, str):
        if to not in ATTENTIONS:
            raise ValueError(f"unknown attention {to!r}" + did_you_mean(to, ATTENTIONS))
        to = ATTENTIONS[to]
    swapped = _with_attention(model, to, options)
    return swapped, swapped_variables(variables, swapped, key)


def swapped_variables(variables: dict, swapped: nn.Module, key: jax.Array | None = None) -> dict:
    """Variables for `swapped` out of those of the same model with another attention.

    Raises:
        ValueError: more Linformer rows than tokens.
    """
    image = example_image(swapped)
    key = jax.random.key(0) if key is None else key
    shapes = traverse_util.flatten_dict(jax.eval_shape(swapped.init, key, image))
    held = traverse_util.flatten_dict(variables)
    new = {}
    for path, leaf in shapes.items():
        kept = held.get(path)
        alike = kept is not None and kept.shape == leaf.shape
        new[path] = kept if alike else _least_change(path, leaf.shape)
    if any(value is None for value in new.values()):  # compiling `init` takes seconds
        fresh = jax.jit(lambda key: swapped.init(key, jnp.zeros(image.shape)))(key)
        drawn = traverse_util.flatten_dict(fresh)
        new = {path: drawn[path] if value is None else value for path, value in new.items()}
    return traverse_util.unflatten_dict(new)


def _with_attention(model: nn.Module, to: ModuleDef, options: dict) -> nn.Module:
    if isinstance(model, EfficientViT) and isinstance(model.transformer, Transformer):
        return model.clone(transformer=_with_attention(model.transformer, to, options))
    if not isinstance(model, AttentionBackbone | Transformer):
        raise ValueError(f"{type(model).__name__} has no attention to swap")
    ours, cores = field_names(type(model)), field_names(to)
    for name in options:
        if name not in ours and name not in cores:
            raise ValueError(f"{to.__name__} has no field {name!r}" + did_you_mean(name, cores))
    kept = {name: value for name, value in model.attention_options.items() if name in cores}
    given = {name: value for name, value in options.items() if name not in ours}
    fields = {name: value for name, value in options.items() if name in ours}
    return model.clone(attention=to, attention_options={**kept, **given}, **fields)


def _least_change(path: tuple[str, ...], shape: tuple[int, ...]) -> jax.Array | None:
    """Where a parameter that the old model has not starts; None: it is drawn."""
    name = path[-1]
    if name in ("proj_k", "proj_v"):
        return jnp.asarray(segment_averages(*shape))
    if name in ("mix_before", "mix_after"):
        return jnp.eye(shape[0])
    if name in ("residual_conv", "table") or path[-2:-1] == ("dense4",):
        return jnp.zeros(shape)
    return None


def segment_averages(tokens: int, k: int) -> np.ndarray:
    """`(tokens, k)` float32 whose columns average consecutive segments of near-equal length.

    Raises:
        ValueError: there are fewer tokens than segments.
    """
    if k > tokens:
        raise ValueError(f"k={k} rows for {tokens} tokens: use k={tokens} or fewer")
    segment = np.arange(tokens) * k // tokens
    member = segment[:, None] == np.arange(k)
    return (member / member.sum(axis=0)).astype(np.float32)
