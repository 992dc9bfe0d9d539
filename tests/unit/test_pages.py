# SPDX-License-Identifier: GPL-2.0-or-later
"""Page lists: round trips, order, and lists that would eat memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model.pages import MEMBERS_MAX, joined, members, parse_ranges


@given(st.sets(st.integers(0, 3000)))
def test_round_trip(pages: set[int]) -> None:
    text = ",".join(str(page) for page in sorted(pages)) or "-"
    assert members(parse_ranges(text), 3001) == pages


def test_ranges_and_single_pages() -> None:
    assert parse_ranges("0-511,600") == ((0, 511), (600, 600))
    assert members(parse_ranges("0-2,9"), 10) == {0, 1, 2, 9}
    assert parse_ranges("-") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "1,",
        "a",
        "-1",
        "1-",
        "1--2",
        "3-2",
        "2,1",
        "1,1",
        "1-3,3",
        "+1",
        "1 ",
        "0x1",
        "\u0663",
    ],
)
def test_bad_lists(text: str) -> None:
    with pytest.raises(ValueError, match=r"page"):
        parse_ranges(text)


def test_a_huge_list_costs_nothing_and_is_refused() -> None:
    ranges = parse_ranges("0-99999999999")
    with pytest.raises(ValueError, match="outside a slot of 512 pages"):
        members(ranges, 512)
    with pytest.raises(ValueError, match="not a page"):
        parse_ranges("9" * 4000)


def test_a_huge_slot_is_not_written_out() -> None:
    ranges = [(0, MEMBERS_MAX - 1)]
    with pytest.raises(ValueError, match=f"more than {MEMBERS_MAX} pages"):
        members([*ranges, (MEMBERS_MAX, MEMBERS_MAX)], 1 << 40)


def test_the_slots_border() -> None:
    assert members(((511, 511),), 512) == {511}
    with pytest.raises(ValueError, match="outside"):
        members(((512, 512),), 512)


def test_parts_of_a_set_are_one_set() -> None:
    parts = [parse_ranges(text) for text in ("0-2,9", "10-12", "-", "20")]
    assert joined(parts) == ((0, 2), (9, 9), (10, 12), (20, 20))
    assert joined([]) == joined([()]) == ()


@pytest.mark.parametrize("again", ["0-9", "9", "3", "9-20"])
def test_a_part_that_does_not_go_on_is_refused(again: str) -> None:
    with pytest.raises(ValueError, match="told after page 9 was"):
        joined([parse_ranges("0-4,6-9"), (), parse_ranges(again)])
