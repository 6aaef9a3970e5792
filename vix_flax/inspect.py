"""What a model is made of: parameters, output shapes and FLOPs of each part, counted from shapes alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn
from flax import traverse_util

from vix_flax.models.image import example_image


def count_params(variables: Any) -> int:
    """Trainable parameters in what `init` returned (or `jax.eval_shape` of it), or in its `params`."""
    params = variables.get("params", variables)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@dataclass(frozen=True)
class Part:
    """One module of a model, and what it holds and costs with all that is inside it."""

    path: str  # "" is the model itself
    module: str  # its class
    shape: tuple[int, ...]  # of its output for one image
    params: int
    flops: int  # of one image's forward pass


def summarize(model: nn.Module, depth: int = 2) -> list[Part]:
    """The model's parts down to `depth` levels, in the order they run; nothing is computed.

    FLOPs are two for each multiply-add of a matrix product or convolution and 5 n log₂ n for a
    Fourier transform of length n, times as often as its loop runs. Elementwise work is not counted.
    """
    img = example_image(model)
    variables = jax.eval_shape(model.init, jax.random.key(0), img)
    seen: dict[tuple[str, ...], tuple[str, tuple[int, ...]]] = {}

    def record(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if context.method_name == "__call__" and len(context.module.path) <= depth:
            seen[context.module.path] = (type(context.module).__name__, out.shape)
        return out

    with nn.intercept_methods(record):
        jaxpr = jax.make_jaxpr(model.apply)(variables, img)
    params = {
        path: math.prod(leaf.shape)
        for path, leaf in traverse_util.flatten_dict(variables["params"]).items()
    }
    flops = list(_flops(jaxpr.jaxpr))

    parts = []
    for path, (module, shape) in seen.items():
        held = sum(size for owner, size in params.items() if owner[: len(path)] == path)
        spent = sum(count for owner, count in flops if owner[: len(path)] == path)
        parts.append(Part("/".join(path), module, shape, held, spent))
    # A part is seen when it is done; a reader wants the whole before its parts.
    order = list(dict.fromkeys(path[:1] for path in seen if path))
    return sorted(
        parts,
        key=lambda p: (order.index((p.path.split("/")[0],)) if p.path else -1, p.path.count("/")),
    )


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
