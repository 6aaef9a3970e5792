from functools import partial

import pytest
from flax import linen as nn

from vix_flax.layers import build, field_names


class Part(nn.Module):
    width: int
    depth: int = 2
    dtype: str | None = None


class Owner(nn.Module):
    width: int = 5
    dtype: str = "bfloat16"
    unknown_to_the_part: int = 1

    @property
    def depth(self):
        return 7


def test_field_names_are_those_a_user_sets_in_order():
    assert field_names(Part) == ["width", "depth", "dtype"]
    assert field_names(partial(Part, depth=3)) == ["width", "depth", "dtype"]


@pytest.mark.parametrize("part", [len, lambda: None, 3, partial(int, 3)])
def test_field_names_are_those_of_a_module(part):
    with pytest.raises(ValueError, match=r"is not a flax\.linen Module class"):
        field_names(part)


def test_a_part_takes_fields_and_properties_of_the_same_name():
    assert build(Part, Owner()) == Part(width=5, depth=7, dtype="bfloat16")


def test_given_wins_over_the_owner():
    assert build(Part, Owner(), depth=1) == Part(width=5, depth=1, dtype="bfloat16")


def test_what_a_partial_binds_wins_over_the_owner():
    assert build(partial(Part, depth=3), Owner()) == Part(width=5, depth=3, dtype="bfloat16")


def test_an_unknown_field_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="Part has no field 'widht'; did you mean 'width'"):
        build(Part, Owner(), widht=3)


def test_the_part_is_adopted_by_the_module_it_is_handed_to():
    class Holder(nn.Module):
        part: nn.Module

    part = build(Part, Owner())
    assert part.parent is None
    assert Holder(part=part).part == part
