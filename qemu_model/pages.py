# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets of page numbers: the channel's text ``0-511,600`` as ranges and as sets.

A list can name 10^11 pages in ten bytes, so the text is kept as ranges and
becomes a set only against the size of its slot.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]
"""(first, last) page numbers, ascending and disjoint."""

#: Page numbers fit in 40 bits: 2^52 bytes of guest memory in 4 KB pages.
_DIGITS = 13
_RANGE = re.compile(rf"([0-9]{{1,{_DIGITS}}})(?:-([0-9]{{1,{_DIGITS}}}))?")
EMPTY = "-"
MEMBERS_MAX = 1 << 22
"""Pages of a set that is written out: a slot of 16 GB."""


def parse_ranges(text: str) -> Ranges:
    """Read ``0-511,600`` (``-`` is the empty set); raises ValueError."""
    if text == EMPTY:
        return ()
    ranges: list[tuple[int, int]] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part[:40]!r} is not a page or a range of pages")
        first = int(match[1])
        last = int(match[2]) if match[2] is not None else first
        if last < first or (ranges and first <= ranges[-1][1]):
            raise ValueError(f"the pages are not in ascending order at {part}")
        ranges.append((first, last))
    return tuple(ranges)


def format_ranges(ranges: Ranges) -> str:
    """The inverse of ``parse_ranges``."""
    return ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in ranges) or EMPTY


def count_pages(ranges: Ranges) -> int:
    """How many pages they are."""
    return sum(last - first + 1 for first, last in ranges)


def has_page(ranges: Ranges, page: int) -> bool:
    """Whether a page is one of them."""
    at = bisect_right(ranges, page, key=lambda pair: pair[0]) - 1
    return at >= 0 and page <= ranges[at][1]


def joined(parts: Iterable[Ranges]) -> Ranges:
    """One set from its parts, in their order.

    Raises ValueError if a part does not go on above the one before it: a guest that repeats
    a short text would otherwise have us expand it again and again.
    """
    found: list[tuple[int, int]] = []
    for part in parts:
        if found and part and part[0][0] <= found[-1][1]:
            raise ValueError(
                f"pages from {part[0][0]} on are told after page {found[-1][1]} was: "
                "the parts of a set ascend"
            )
        found += part
    return tuple(found)


def members(ranges: Iterable[tuple[int, int]], pages: int) -> frozenset[int]:
    """Return the page numbers, for a slot of ``pages`` pages.

    Raises ValueError if a page lies outside the slot, or if there are too many.
    """
    found: set[int] = set()
    count = 0
    for first, last in ranges:
        if not 0 <= first <= last < pages:
            raise ValueError(f"pages {first}-{last} are outside a slot of {pages} pages")
        count += last - first + 1
        if count > MEMBERS_MAX:
            raise ValueError(f"more than {MEMBERS_MAX} pages on one line")
        found.update(range(first, last + 1))
    return frozenset(found)
