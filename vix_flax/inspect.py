"""What a model is made of: parameters, outputs and FLOPs of each part, from shapes alone."""

import math
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn
from flax import traverse_util

from vix_flax.flops import products
from vix_flax.models.image import example_image


def count_params(variables: Any) -> int:
    """Trainable parameters in what `init` (or `eval_shape` of it) returned, or in its `params`."""
    params = variables.get("params", variables)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@dataclass(frozen=True)
class Part:
    """One module of a model, and what it holds and costs with all that is inside it."""

    path: str  # "" is the model itself
    module: str  # its class
    shape: tuple[int, ...]  # of its (first) output for one image
    params: int
    flops: int  # of one image's forward pass


def summarize(model: nn.Module, depth: int = 2) -> list[Part]:
    """The model's parts down to `depth` levels, in the order they run; nothing is computed.

    FLOPs are those of `vix_flax/flops.py`: elementwise work is not counted, nor are depth-wise
    convolutions, which are that here.
    """
    img = example_image(model)
    variables = jax.eval_shape(model.init, jax.random.key(0), img)
    begun: list[tuple[str, ...]] = []
    outputs: dict[tuple[str, ...], tuple[str, tuple[int, ...]]] = {}

    def record(call, args, kwargs, context):
        if context.method_name != "__call__" or len(path := context.module.path) > depth:
            return call(*args, **kwargs)
        begun.append(path)
        out = call(*args, **kwargs)
        first = jax.tree.leaves(out)[0]
        outputs[path] = (type(context.module).__name__, first.shape)
        return out

    with nn.intercept_methods(record):
        jaxpr = jax.make_jaxpr(model.apply)(variables, img)
    leaves = traverse_util.flatten_dict(variables["params"])
    params = [(path, math.prod(leaf.shape)) for path, leaf in leaves.items()]
    flops = [(product.path, product.flops) for product in products(jaxpr)]

    def inside(path, counts):
        return sum(count for owner, count in counts if owner[: len(path)] == path)

    parts = [
        Part("/".join(path), *outputs[path], inside(path, params), inside(path, flops))
        for path in begun
    ]
    # Dropout and the like neither hold nor cost anything.
    return [part for part in parts if part.params or part.flops]
