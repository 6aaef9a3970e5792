"""Fields checked at the door, before anything is compiled: field, value and remedy in one line."""

from typing import Any


def require_positive_ints(owner: Any, *fields: str) -> None:
    """Raises ValueError unless each field is an int above 0.

    Also allowed: None, if that is the default, and a tuple of such ints, if the type says so.
    """
    for field in fields:
        value, declared = getattr(owner, field), owner.__dataclass_fields__[field]
        if value is None and declared.default is None:
            continue
        several = "tuple" in str(declared.type)
        values = value if several and isinstance(value, tuple) else (value,)
        if not values or any(type(v) is not int or v < 1 for v in values):
            raise ValueError(
                f"{field}={value!r} must be a positive int" + (", or several" if several else "")
            )


def require_num_classes(owner: Any) -> None:
    """Raises ValueError unless `num_classes` is an int, 0 or more."""
    if type(owner.num_classes) is not int or owner.num_classes < 0:
        raise ValueError(f"num_classes={owner.num_classes!r} must be an int, 0 for features")


def require_rates(owner: Any, *fields: str) -> None:
    """Raises ValueError unless each field is a number from 0 to below 1."""
    for field in fields:
        value = getattr(owner, field)
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise ValueError(f"{field}={value!r} must be at least 0 and below 1")


def per_stage(owner: Any, field: str, stages: int) -> tuple[int, ...]:
    """A field as one value for each stage: one serves all, the last of several is repeated.

    Raises:
        ValueError: there are more values than stages.
    """
    value = getattr(owner, field)
    values = value if isinstance(value, tuple) else (value,)
    if len(values) > stages:
        raise ValueError(f"{field}={value!r} has more values than there are stages ({stages})")
    return (*values, *values[-1:] * (stages - len(values)))
