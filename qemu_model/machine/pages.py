# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets of page numbers: the channel's text ``0-511,600``, ranges, and bitmaps in an int.

A list can name 10^11 pages in ten bytes, so the text is kept as ranges and
becomes a bitmap only against the size of its slot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

Ranges = tuple[tuple[int, int], ...]
"""(first, last) page numbers, ascending and disjoint."""

#: Page numbers fit in 40 bits: 2^52 bytes of guest memory in 4 KB pages.
_DIGITS = 13
_RANGE = re.compile(rf"([0-9]{{1,{_DIGITS}}})(?:-([0-9]{{1,{_DIGITS}}}))?")
EMPTY = "-"


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


def bitmap(ranges: Iterable[tuple[int, int]], pages: int) -> int:
    """Return the set as an int whose bit N is page N, for a slot of ``pages`` pages.

    Raises ValueError if a page lies outside the slot.
    """
    bits = 0
    for first, last in ranges:
        if not 0 <= first <= last < pages:
            raise ValueError(f"pages {first}-{last} are outside a slot of {pages} pages")
        bits |= ((1 << (last - first + 1)) - 1) << first
    return bits


def pages_in(bits: int) -> Iterator[int]:
    """Yield the page numbers of a bitmap in ascending order."""
    for first, last in ranges_of(bits):
        yield from range(first, last + 1)


def ranges_of(bits: int) -> Ranges:
    """Return the runs of set bits, ascending."""
    text = f"{bits:b}"[::-1] if bits else ""
    return tuple((run.start(), run.end() - 1) for run in re.finditer("1+", text))


def format_pages(bits: int) -> str:
    """Return the channel's text for a bitmap; inverse of parse_ranges and bitmap."""
    parts = (str(a) if a == b else f"{a}-{b}" for a, b in ranges_of(bits))
    return ",".join(parts) or EMPTY
