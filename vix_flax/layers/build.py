"""How a backbone and its parts agree: by the names of their fields."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from vix_flax.suggest import did_you_mean

ModuleDef = Callable[..., nn.Module]  # a Module class, or a `functools.partial` of one


def field_names(part: ModuleDef) -> list[str]:
    """The names of the fields that a user sets on a module class, in order.

    Raises:
        ValueError: `part` is no module class; an instance is none either.
    """
    cls = part.func if isinstance(part, functools.partial) else part
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        if isinstance(cls, nn.Module):
            raise ValueError(f"{type(cls).__name__}(…) is an instance: give the class, without ()")
        raise ValueError(f"{part!r} is not a flax.linen Module class")
    return [f.name for f in dataclasses.fields(cls) if f.init and f.name not in ("parent", "name")]


def build(part: ModuleDef, owner: nn.Module, **given: Any) -> nn.Module:
    """`part(**fields)`, each field from `given`, else from `owner`'s attribute of the same name.

    So an attention with a field `num_landmarks` reads it off any backbone that has one, and
    nothing between the two needs to know. The part has no parent yet: whichever module it is
    handed to adopts it. A keyword bound in a `partial` wins over the owner.

    Raises:
        ValueError: `given` names something that is not a field of `part`.
    """
    names = field_names(part)
    for name in given:
        if name not in names:
            raise ValueError(
                f"{getattr(part, '__name__', part)} has no field {name!r}"
                + did_you_mean(name, names)
            )
    bound = part.keywords if isinstance(part, functools.partial) else {}
    inherited = {n: getattr(owner, n) for n in names if n not in bound and hasattr(owner, n)}
    return part(**{**inherited, **given}, parent=None)


def build_attention(owner: nn.Module, **given: Any) -> nn.Module:
    """A new core of the class that `owner.attention` names, with `owner.attention_options`.

    What is `given` and is no field of this attention is left out: not every core has a dropout.
    """
    names = field_names(owner.attention)
    known = {name: value for name, value in given.items() if name in names}
    return build(owner.attention, owner, **{**known, **owner.attention_options})
