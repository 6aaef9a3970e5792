"""Torch state dicts to variables: names by the family's table, layouts by the kind of parameter."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from vix_flax.convert.rules import not_read, table_for
from vix_flax.models.image import example_image, pair
from vix_flax.zoo import NanoViT

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
# Counters, and tables that follow from the shapes.
DERIVED = re.compile(
    r"(^|\.)(num_batches_tracked|\w*pos_emb\.emb|pos_indices|\w*pos_indices|calls_since_last_redraw)$"
)


def from_torch(model: nn.Module, state_dict: Mapping[str, Any]) -> dict:
    """The variables of `model` from a published model's `state_dict` (names → arrays or tensors).

    The numbers agree with PyTorch's for `reference=True`. The RoPE models' position embedding,
    which the published code carries but never reads, is dropped unless the model is a reference.

    Raises:
        ValueError: names that are missing, left over or of another shape; all of them are listed.
    """
    weights = {name: np.asarray(value) for name, value in state_dict.items()}
    table = table_for(model)
    wanted = jax.eval_shape(model.init, jax.random.key(0), example_image(model))
    used = {name for name, w in weights.items() if DERIVED.search(name) or not w.size}
    used |= not_read(model)

    problems, converted = [], {}
    for path, leaf in traverse_util.flatten_dict(wanted).items():
        names = torch_names(path[1:], table, weights)
        if not names:
            problems.append(f"no published counterpart of {'/'.join(path[1:])}")
        missing = [name for name in names if name not in weights]
        problems += [f"missing {name}" for name in missing]
        used.update(names)
        if missing or not names:
            continue
        try:
            parts = [_layout(model, path, weights[name], leaf.ndim) for name in names]
            value = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
            if _without_ones(value.shape) == _without_ones(leaf.shape):
                value = value.reshape(leaf.shape)  # (1, c, 1, 1) and the like
        except ValueError:  # cannot even be laid out, or joined
            value = None
        if value is None or value.shape != leaf.shape:
            shapes = " + ".join(f"{name} {weights[name].shape}" for name in names)
            problems.append(f"misshapen {shapes}: {'/'.join(path[1:])} needs {leaf.shape}")
        else:
            converted[path] = jnp.asarray(value, leaf.dtype)
    problems += [f"left over {name} {weights[name].shape}" for name in weights if name not in used]
    if problems:
        raise ValueError(
            f"the state dict does not fit {type(model).__name__}: " + "; ".join(problems)
        )
    return traverse_util.unflatten_dict(converted)


def torch_names(path: tuple[str, ...], table: dict[str, str], weights: Mapping) -> list[str]:
    """The torch names that make up our leaf; of several alternatives the first that exists.

    None where the published code has nothing of the kind: an attention it was not written for.
    """
    whole, module, leaf = "/".join(path), "/".join(path[:-1]), path[-1]
    for pattern, torch_names in table.items():
        for text, suffix in ((whole, ""), (module, "." + LEAVES.get(leaf, leaf))):
            match = re.fullmatch(pattern, text)
            if match:
                choices = [
                    [match.expand(name) + suffix for name in choice.split("+")]
                    for choice in torch_names.split("|")
                ]
                return next((c for c in choices if all(n in weights for n in c)), choices[0])
    return []


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def _layout(model: nn.Module, path: tuple[str, ...], weight: np.ndarray, ndim: int) -> np.ndarray:
    """One torch array in our axis order: outputs last, inputs before them, space in front."""
    if path[-1] == "residual_conv" and weight.ndim == 4:
        return weight[:, 0, :, 0].T
    if path[-1] != "kernel" or weight.ndim < 2:
        return weight
    if isinstance(model, NanoViT) and path[1:] == ("embedding", "dense", "kernel"):
        # nanovit flattens a patch channel by channel, as a convolution's weight is laid out.
        weight = weight.reshape(len(weight), model.channels, *pair("patch_size", model.patch_size))
    kernel = weight.transpose(*range(2, weight.ndim), 1, 0)
    return kernel if kernel.ndim == ndim else kernel.reshape(-1, kernel.shape[-1])
