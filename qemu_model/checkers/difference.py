# SPDX-License-Identifier: GPL-2.0-or-later
"""The first difference between what two runs recorded: in its order, or as a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from qemu_model.checkers.side import Side
from qemu_model.checkers.stretches import Stretch


@dataclass(frozen=True)
class Difference:
    """The first thing in which two runs differ; all of it in words."""

    what: str
    """entries, refusals, registers, bitmaps, results or anomalies"""
    line: int
    """Program line with which the stretch begins, or that tells of the pages."""
    rule: str
    """How it was compared."""
    reference: str
    other: str
    reference_records: tuple[str, ...] = ()
    other_records: tuple[str, ...] = ()


Key = tuple[Hashable, ...]
Keyed = Sequence[tuple[Key, int]]
"""What counts of a record, and its number."""
Wording = Callable[[Key], str]


def in_order(
    what: str, rule: str, stretch: Stretch, sides: tuple[Side, Side],
    keyed: tuple[Keyed, Keyed], words: Wording,
) -> Iterator[Difference]:  # fmt: skip
    """The first place at which two sequences differ."""
    for at, pair in enumerate(zip_longest(*keyed)):
        ours, theirs = pair
        if ours is None or theirs is None or ours[0] != theirs[0]:
            texts, shown = [], []
            for side, one, many in zip(sides, pair, keyed, strict=True):
                head = f"number {at + 1} of {len(many)}: "
                texts.append(head + words(one[0]) if one else f"{len(many)}, no more")
                anchor = one[1] if one else many[-1][1] if many else None
                shown.append(side.around(anchor, stretch))
            yield Difference(what, stretch.lines[0], rule, texts[0], texts[1], shown[0], shown[1])
            return


def as_counts(
    what: str, rule: str, stretch: Stretch, sides: tuple[Side, Side],
    keyed: tuple[Keyed, Keyed], words: Wording, once: bool = False,
) -> Iterator[Difference]:  # fmt: skip
    """The first record that one side has, or has more often; ``once`` only whether."""
    counts: list[Mapping[Key, int]] = [
        dict.fromkeys((key for key, _ in one), 1) if once else Counter(key for key, _ in one)
        for one in keyed
    ]
    # What each side has more often than the other one, in its order.
    surplus = [
        [(key, seq) for key, seq in keyed[at] if counts[at][key] > counts[1 - at].get(key, 0)]
        for at in (0, 1)
    ]
    if not surplus[0] and not surplus[1]:
        return
    key = (surplus[0] or surplus[1])[0][0]
    texts, shown = [], []
    for side, count, one, more in zip(sides, counts, keyed, surplus, strict=True):
        have = count.get(key, 0)
        text = f"{words(key)}: {('yes' if once else f'{have} times') if have else 'none'}"
        last = dict(one)  # where each key comes for the last time
        anchor = last.get(key)
        if anchor is None and more:
            text += f", but {words(more[0][0])}"
            anchor = last[more[0][0]]
        texts.append(text)
        shown.append(side.around(anchor, stretch))
    yield Difference(what, stretch.lines[0], rule, texts[0], texts[1], shown[0], shown[1])
