"""What a backbone's blocks put out, and a trained backbone under a new head."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from flax import linen as nn
from flax import traverse_util

from vix_flax.models.image import example_image
from vix_flax.resize import resize_positions

BLOCK = re.compile(r"(cls_)?blocks_\d+(_\d+)?")
HEAD = re.compile(r"(head|heads|classifier|distill_head)(_\d+)?")


def features(
    model: nn.Module, variables: dict, img: jax.Array, layers: Sequence[int] | None = None
) -> tuple[jax.Array, ...]:
    """The output of each block, `(b, n, dim)` or `(b, h, w, dim)`, in the order they run.

    Args:
        model: any backbone.
        variables: of the model.
        img: `(b, H, W, C)`.
        layers: which blocks, counted from 0, or from -1 backwards; None: all.

    Raises:
        ValueError: there is no such block, or the model's encoder has none that are known.
    """
    model = model.clone(remat=False) if model.remat else model
    count = len(jax.eval_shape(partial(_outputs, model), variables, img))
    if not count:
        raise ValueError("the model's encoder has no blocks named blocks_0, blocks_1, …")
    wanted = range(count) if layers is None else layers
    if not all(-count <= layer < count for layer in wanted):
        raise ValueError(f"layers={list(wanted)}: there are {count}, from 0 to {count - 1}")
    outputs = _jitted_outputs(model, variables, img)
    return tuple(outputs[layer] for layer in wanted)


def with_features(
    apply_fn: Callable, variables: dict, img: jax.Array, **given: Any
) -> tuple[Any, dict, list[jax.Array]]:
    """What `apply_fn(variables, img, mutable=…)` returns, and every block's output.

    Not for models that recompute their blocks (`remat`).
    """
    found = []

    def record(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name != "__call__" or not (path := context.module.path):
            return out
        if BLOCK.fullmatch(path[-1]) and path[0] != "embedding":
            found.append(jax.tree.leaves(out)[0])
        return out

    with nn.intercept_methods(record):
        out, updates = apply_fn(variables, img, **{"mutable": [], **given})
    return out, updates, found


def _outputs(model, variables, img):
    return with_features(model.apply, variables, img)[2]


_jitted_outputs = jax.jit(_outputs, static_argnums=0)


def fine_tune_variables(
    variables: dict, model_from: nn.Module, model_to: nn.Module, key: jax.Array
) -> dict:
    """Trained variables for the same model with other classes, for images of another size.

    The head is drawn anew where its shape changes; positions are resampled; all else is kept.

    Args:
        variables: of `model_from`.
        model_from, model_to: alike but for `num_classes` and `image_size`.
        key: for the new head.

    Raises:
        ValueError: the models differ in more.
    """
    if model_from.num_classes != model_to.num_classes:
        fresh = _jitted_init(model_from.clone(num_classes=model_to.num_classes), key)
        held = traverse_util.flatten_dict(variables)
        new = {
            path: leaf
            for path, leaf in traverse_util.flatten_dict(fresh).items()
            if any(HEAD.fullmatch(part) for part in path)
        }
        kept = {p: leaf for p, leaf in held.items() if not any(map(HEAD.fullmatch, p))}
        model_from = model_from.clone(num_classes=model_to.num_classes)
        variables = traverse_util.unflatten_dict(kept | new)
    return resize_positions(variables, model_from, model_to)


def _jitted_init(model, key):
    image = example_image(model)
    return jax.jit(lambda key: model.init(key, jax.numpy.zeros(image.shape)))(key)
