from functools import partial

import pytest
from flax import linen as nn
from flax.core import FrozenDict

from vix_flax.layers import build, build_attention, field_names


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


class Attending(Owner):
    attention: type = Part
    attention_options: FrozenDict = FrozenDict()


def test_a_core_takes_fields_of_the_same_name_and_the_options():
    assert build_attention(Attending()) == Part(width=5, depth=7, dtype="bfloat16")
    owner = Attending(attention_options=FrozenDict(depth=3))
    assert build_attention(owner) == Part(width=5, depth=3, dtype="bfloat16")


def test_options_win_over_what_is_given_and_that_over_the_owner():
    owner = Attending(attention_options=FrozenDict(depth=3))
    assert build_attention(owner, depth=4, width=6) == Part(width=6, depth=3, dtype="bfloat16")


def test_what_the_core_has_no_field_for_is_left_out_where_given_and_refused_as_an_option():
    assert build_attention(Attending(), attention_dropout=0.5) == build_attention(Attending())
    with pytest.raises(ValueError, match="Part has no field 'dept'; did you mean 'depth'"):
        build_attention(Attending(attention_options=FrozenDict(dept=3)))


def test_every_core_is_a_new_one():
    owner = Attending()
    assert build_attention(owner) is not build_attention(owner)
