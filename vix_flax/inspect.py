"""What a model is made of: parameters, outputs and FLOPs of each part, from shapes alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn
from flax import traverse_util

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

    FLOPs are two for each multiply-add of a matrix product or convolution and 5 n log₂ n for a
    Fourier transform of length n, times as often as its loop runs. Elementwise work is not counted,
    nor are depth-wise convolutions, which are that here.
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
    flops = list(_flops(jaxpr.jaxpr))

    def inside(path, counts):
        return sum(count for owner, count in counts if owner[: len(path)] == path)

    parts = [
        Part("/".join(path), *outputs[path], inside(path, params), inside(path, flops))
        for path in begun
    ]
    # Dropout and the like neither hold nor cost anything.
    return [part for part in parts if part.params or part.flops]


def _flops(jaxpr, scope: tuple[str, ...] = (), times: int = 1) -> Iterator[tuple[tuple, int]]:
    """(module path, FLOPs) of every product in a jaxpr and the jaxprs inside it.

    Linen names the scope of each module, so an equation knows where it comes from: the class
    of the model, then names; method scopes carry a dot and einsum's a comma, and are left out.
    """
    for eqn in jaxpr.eqns:
        names = str(eqn.source_info.name_stack).split("/")
        path = (*scope, *(n for n in names if n and "." not in n and "," not in n))
        loop = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _flops(inner, path, times * loop)
        count = _product_flops(eqn)
        if count:
            yield path[1:], times * count


def _product_flops(eqn) -> int:
    name = eqn.primitive.name
    out = math.prod(eqn.outvars[0].aval.shape) if eqn.outvars else 0
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * out * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        output_features = eqn.params["dimension_numbers"].rhs_spec[0]
        return 2 * out * math.prod(kernel) // kernel[output_features]
    if name == "fft":
        lengths = eqn.params["fft_lengths"]
        whole = math.prod(eqn.invars[0].aval.shape)
        return int(5 * whole * sum(math.log2(length) for length in lengths))
    return 0
