"""Fields checked at the door, before anything is compiled: field, value and remedy in one line."""

from typing import Any


def require_positive_ints(owner: Any, *fields: str) -> None:
    """Raises ValueError unless each field is an int above 0 (or None, if that is its default)."""
    for field in fields:
        value = getattr(owner, field)
        optional = owner.__dataclass_fields__[field].default is None
        if not (value is None and optional) and (type(value) is not int or value < 1):
            raise ValueError(f"{field}={value!r} must be a positive int")


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
