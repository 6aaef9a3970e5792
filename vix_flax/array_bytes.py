"""How much memory a function's arrays take, read off its jaxpr: known before it is compiled.

XLA merges elementwise work, and orders it by itself: it needs between 0.9 and 2.1 times what is
said here (training steps of the models in `benchmarks/`, on a CPU).
"""

import math
from typing import Any

from jax.extend.core import Literal

from vix_flax.flops import inner_jaxprs, used_equations


def bytes_of(array: Any) -> int:
    """Of an array, or of what has its shape and dtype; 0 of a token, which has none."""
    return math.prod(array.shape) * array.dtype.itemsize if hasattr(array, "shape") else 0


def largest_array(jaxpr: Any) -> int:
    """Bytes of the largest array that an equation gives, in a jaxpr and in the jaxprs inside it."""
    largest = 0
    for eqn in used_equations(getattr(jaxpr, "jaxpr", jaxpr)):
        inside = map(largest_array, inner_jaxprs(eqn))
        largest = max(largest, *map(_bytes, eqn.outvars), *inside)
    return largest


def most_held(jaxpr: Any) -> int:
    """The most bytes that a jaxpr's own arrays take at once, run from top to bottom.

    What it is given is not counted, nor what conditions hold inside. Of a batch that is cut over
    devices, all of it counts.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    equations = used_equations(jaxpr)
    given = {*jaxpr.invars, *jaxpr.constvars}
    last_use = dict.fromkeys(_variables(jaxpr.outvars), len(equations))
    for i, eqn in reversed(list(enumerate(equations))):
        for variable in _variables((*eqn.invars, *eqn.outvars)):
            last_use.setdefault(variable, i)
    held = most = 0
    for i, eqn in enumerate(equations):
        inside = max(map(most_held, inner_jaxprs(eqn)), default=0)
        if eqn.primitive.name == "shard_map":  # its shapes are those of one device
            inside *= eqn.params["mesh"].size
        results = sum(map(_bytes, eqn.outvars))
        if eqn.primitive.name == "jit":  # they are among what is inside
            inside = max(0, inside - results)
        held += results
        most = max(most, held + inside)
        gone = {v for v in _variables((*eqn.invars, *eqn.outvars)) if last_use[v] == i} - given
        held -= sum(map(_bytes, gone))
    return most


def _variables(atoms):
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def _bytes(variable):
    return bytes_of(variable.aval)
