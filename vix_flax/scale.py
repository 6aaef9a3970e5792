"""How attention cores grow with the number of tokens: time, memory and FLOPs of each, measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vix_flax.attention import ATTENTIONS
from vix_flax.flops import count_flops, largest_product
from vix_flax.mixers import Fourier
from vix_flax.models.image import check_dtype
from vix_flax.preflight import GIB, bytes_needed
from vix_flax.suggest import did_you_mean
from vix_flax.timing import Pace, median_seconds, out_of_memory
from vix_flax.training.programs import compile_frugally

MIXES = {**ATTENTIONS, "fourier": Fourier}


@dataclass(frozen=True)
class Sizes:
    """Of queries, keys and values: `(batch, tokens, heads, dim_head)`, and their dtype.

    Raises:
        ValueError: one is not positive, or the dtype no float that there is.
    """

    batch: int = 1
    heads: int = 4
    dim_head: int = 32
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("batch", "heads", "dim_head"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        check_dtype(self.dtype)


@dataclass(frozen=True)
class Limits:
    """What a point may take: `bytes` of the device, and `seconds` for all of its calls."""

    bytes: int
    seconds: float = 60.0


@dataclass(frozen=True)
class Point:
    """One attention at one number of tokens: a forward and a backward pass.

    Attributes:
        attention: its name.
        tokens: queries, and as many keys.
        flops: counted from shapes, recomputation in the backward pass included.
        bytes: that the compiled program holds, arguments included; None: it was not compiled.
        seconds: of one call, the median; None: it was not run.
        left_out: why it was not.
    """

    attention: str
    tokens: int
    flops: int
    bytes: int | None = None
    seconds: float | None = None
    left_out: str = ""


def check_mixes(names: Sequence[str], sizes: Sizes) -> None:
    """Raises ValueError for a name that is none, or sizes that an attention does not take."""
    for name in names:
        if name not in MIXES:
            raise ValueError(f"unknown attention {name!r}" + did_you_mean(name, MIXES))
        _abstract(name, 2, sizes)


def parse_tokens(text: str) -> tuple[int, ...]:
    """Numbers in rising order: `"64,256"` → `(64, 256)`.

    Raises:
        ValueError: there is something else, or a number below 2.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 1 for part in parts):
        raise ValueError(f"tokens={text!r} must be numbers from 2 on, as in 64,256,1024")
    return tuple(sorted({int(part) for part in parts}))


def measure_mix(
    name: str,
    tokens: Sequence[int],
    sizes: Sizes,
    limits: Limits,
    seconds: float = 1.0,
) -> Iterator[Point]:
    """A point for each number of tokens, in rising order, as soon as it is measured.

    What would need more than `limits` is left out, and says why. Memory is asked of the compiled
    program, and before that of its largest product; time is foretold by a point's FLOPs at the pace
    of the point before.

    Args:
        name: a key of `MIXES`.
        tokens: in rising order.
        sizes: of queries, keys and values.
        limits: of each point.
        seconds: of calls that are measured, three at least, if a point's limit has room for them.
    """
    before = None
    for n in tokens:
        point = _point(name, n, sizes, limits, seconds, before)
        if point.seconds is not None:
            before = point
        yield point


def _point(name, n, sizes, limits, seconds, before):
    """What is known of it within its limits: FLOPs, then memory, then time."""
    module, shapes = _abstract(name, n, sizes)
    traced = jax.jit(partial(_forward_backward, module)).trace(*shapes)
    point = Point(name, n, count_flops(traced.jaxpr))
    at_least = largest_product(traced.jaxpr)
    if at_least > limits.bytes:
        return replace(point, left_out=f"needs {_gib(at_least, limits.bytes)} for one product")
    try:
        compiled = compile_frugally(traced, shapes, mesh=None)
        point = replace(point, bytes=bytes_needed(compiled))
        if point.bytes > limits.bytes:
            return replace(point, left_out=f"needs {_gib(point.bytes, limits.bytes)}")
        expected = 0.0
        if before is not None:
            expected = 2 * before.seconds * point.flops / max(before.flops, 1)
        if expected > limits.seconds:
            text = f"two calls would take {expected:,.3g} s, of {limits.seconds:g}"
            return replace(point, left_out=text)
        call = partial(compiled, *_drawn(module, shapes))
        took, _ = median_seconds(call, Pace(seconds=seconds, most=limits.seconds))
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return replace(point, left_out="out of memory")
    return replace(point, seconds=took)


def _forward_backward(module, variables, given, cotangent):
    """The output, and gradients of parameters and inputs."""
    rest = {name: held for name, held in variables.items() if name != "params"}

    def forward(params, *given):
        return module.apply({**rest, "params": params}, *given)

    out, back = jax.vjp(forward, variables.get("params", {}), *given)
    return out, back(cotangent)


def _abstract(name, n, sizes):
    """The module; and shapes of its variables, its inputs and its output."""
    module = MIXES[name]() if name == "fourier" else MIXES[name](dtype=sizes.dtype)
    each = (sizes.batch, n, sizes.heads, sizes.dim_head)
    if name == "fourier":
        each = (sizes.batch, n, sizes.heads * sizes.dim_head)
    x = jax.ShapeDtypeStruct(each, sizes.dtype)
    given = (x,) if name == "fourier" else (x, x, x)
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), *given)
    return module, (variables, given, out)


def _drawn(module, shapes):
    """Arrays of these shapes: initial variables and normal deviates."""
    _, given, out = shapes
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32), x.dtype)
    given = tuple(map(draw, given))
    return jax.jit(module.init)(jax.random.key(0), *given), given, draw(out)


def _gib(needed, there):
    return f"{needed / GIB:.3g} GiB, of {there / GIB:.3g}"
