"""How many FLOPs a function has, counted in its jaxpr: XLA counts a loop's body only once.

Two for each multiply-add of a matrix product or convolution and 5 n log₂ n for a Fourier transform
of length n, times as often as its loop runs. Elementwise work is not counted.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


class Product(NamedTuple):
    """One matrix product, convolution or Fourier transform."""

    path: tuple[str, ...]  # of the module that it is in
    flops: int  # of all its runs
    bytes: int  # of one result


def count_flops(jaxpr: Any) -> int:
    """FLOPs of one call, recomputation included; of what `jax.make_jaxpr(f)(…)` gives."""
    return sum(product.flops for product in products(jaxpr))


def largest_product(jaxpr: Any) -> int:
    """Bytes of the largest result of a product: at least so much memory is needed."""
    return max((product.bytes for product in products(jaxpr)), default=0)


def products(jaxpr: Any, scope: tuple[str, ...] = (), times: int = 1) -> Iterator[Product]:
    """Every product in a jaxpr and in the jaxprs inside it.

    Of a condition, the branch with the most FLOPs; the body of a `while` loop, of which nobody
    knows how often it runs, once.

    Linen names the scope of each module, so an equation knows where it comes from: the class
    of the model, then names; method scopes carry a dot and einsum's a comma, and are left out.
    """
    for eqn in used_equations(getattr(jaxpr, "jaxpr", jaxpr)):
        names = str(eqn.source_info.name_stack).split("/")
        path = (*scope, *(n for n in names if n and "." not in n and "," not in n))
        runs = times
        if eqn.primitive.name == "scan":
            runs *= eqn.params["length"]
        elif eqn.primitive.name == "shard_map":  # its shapes are those of one device
            runs *= eqn.params["mesh"].size
        for inner in inner_jaxprs(eqn):
            yield from products(inner, path, runs)
        if branches := eqn.params.get("branches"):
            yield from products(max(branches, key=count_flops), path, runs)
        count = _flops(eqn)
        if count:
            held = math.prod(eqn.outvars[0].aval.shape) * eqn.outvars[0].aval.dtype.itemsize
            yield Product(path[1:], runs * count, held)


def inner_jaxprs(eqn: JaxprEqn) -> list[ClosedJaxpr | Jaxpr]:
    """The jaxprs that an equation runs, but for a condition's branches."""
    return [value for value in eqn.params.values() if isinstance(value, ClosedJaxpr | Jaxpr)]


def used_equations(jaxpr: Jaxpr) -> list[JaxprEqn]:
    """Its equations without those whose results nobody needs, as XLA would run them."""
    needed, used = set(map(id, jaxpr.outvars)), []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(id(out) in needed for out in eqn.outvars):
            needed.update(map(id, eqn.invars))
            used.append(eqn)
    return used[::-1]


def _flops(eqn) -> int:
    """Of one run; 0 if it is no product."""
    name = eqn.primitive.name
    out = math.prod(eqn.outvars[0].aval.shape) if eqn.outvars else 0
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * out * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        output_features = eqn.params["dimension_numbers"].rhs_spec[0]
        zeros = math.prod(eqn.params["lhs_dilation"])  # between pixels: a strided one's gradient
        return 2 * out * math.prod(kernel) // kernel[output_features] // zeros
    if "dot_product_attention" in name:  # cuDNN's: two products, and five in its derivative
        (b, n, h, d), m = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape[1]
        return (5 if "bwd" in name else 2) * 2 * b * h * n * m * d
    if name == "fft":
        lengths = eqn.params["fft_lengths"]
        whole = math.prod(eqn.invars[0].aval.shape)
        return int(5 * whole * sum(math.log2(length) for length in lengths))
    return 0
