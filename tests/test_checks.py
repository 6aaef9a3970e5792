"""Fields checked at the door."""

import dataclasses
from typing import Any

import pytest

from vix_flax.checks import per_stage, require_num_classes, require_positive_ints, require_rates


@dataclasses.dataclass
class Owner:
    single: int = 1
    optional: int | None = None
    several: int | tuple[int, ...] = 1
    only_several: tuple[int, ...] = (1,)
    rate: Any = 0.5
    num_classes: Any = 10


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("single", 1),
        ("single", 10**9),
        ("optional", None),
        ("optional", 3),
        ("several", 2),
        ("several", (2,)),
        ("several", (2, 1, 3)),
        ("only_several", (4, 2)),
    ],
)
def test_positive_ints_pass(field, value):
    require_positive_ints(Owner(**{field: value}), field)


@pytest.mark.parametrize("field", ["single", "optional", "several", "only_several"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, [1], (0,), (1, 0), (1, 2.0), ((1,),), ()])
def test_anything_else_is_refused(field, value):
    message = f"^{field}=.* must be a positive int"
    with pytest.raises(
        ValueError, match=message + (", or several$" if "several" in field else "$")
    ):
        require_positive_ints(Owner(**{field: value}), field)


@pytest.mark.parametrize("field", ["single", "several", "only_several"])
def test_none_passes_only_where_it_is_the_default(field):
    with pytest.raises(ValueError, match=f"{field}=None must be a positive int"):
        require_positive_ints(Owner(**{field: None}), field)


def test_several_pass_only_where_the_type_says_so():
    with pytest.raises(ValueError, match=r"single=\(1, 2\) must be a positive int$"):
        require_positive_ints(Owner(single=(1, 2)), "single")


def test_every_named_field_is_checked():
    with pytest.raises(ValueError, match="several=0"):
        require_positive_ints(Owner(several=0), "single", "optional", "several")
    require_positive_ints(Owner(several=0), "single", "optional")


@pytest.mark.parametrize(
    ("value", "stages", "each"),
    [
        (3, 1, (3,)),
        (3, 4, (3, 3, 3, 3)),
        ((3,), 3, (3, 3, 3)),
        ((1, 2), 2, (1, 2)),
        ((1, 2), 4, (1, 2, 2, 2)),
        ((1, 2, 3), 3, (1, 2, 3)),
    ],
)
def test_one_value_serves_all_stages_and_the_last_of_several_is_repeated(value, stages, each):
    assert per_stage(Owner(several=value), "several", stages) == each


@pytest.mark.parametrize("stages", [1, 2])
def test_more_values_than_stages_are_refused(stages):
    message = rf"several=\(1, 2, 3\) has more values than there are stages \({stages}\)"
    with pytest.raises(ValueError, match=message):
        per_stage(Owner(several=(1, 2, 3)), "several", stages)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "0.5", None, float("nan")])
def test_rates_are_from_zero_to_below_one(rate):
    with pytest.raises(ValueError, match=r"rate=.* must be at least 0 and below 1"):
        require_rates(Owner(rate=rate), "rate")


@pytest.mark.parametrize("rate", [0, 0.0, 0.999])
def test_rates_pass(rate):
    require_rates(Owner(rate=rate), "rate")


@pytest.mark.parametrize("classes", [-1, 1.0, "3", None, True])
def test_classes_are_counted(classes):
    with pytest.raises(ValueError, match=r"num_classes=.* must be an int, 0 for features"):
        require_num_classes(Owner(num_classes=classes))


@pytest.mark.parametrize("classes", [0, 1, 1000])
def test_numbers_of_classes_pass(classes):
    require_num_classes(Owner(num_classes=classes))
