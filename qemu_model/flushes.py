# SPDX-License-Identifier: GPL-2.0-or-later
"""flushes.jsonl: what the kernel's own dirty bitmaps held at each flush of an HDBSS buffer.

This module is the definition of format version 3: JSON, an object on each line.  The
first line is ``{"version": 3, "page_shift": 12, "symbol": null, "no_srcu": ""}``; ``symbol``
is what ``--flush-symbol`` named, ``no_srcu`` why nobody in kvm->srcu is counted.  Each further line
is one of

``{"flush": N, ...}``
    Flush number N, from 1: HDBSSPROD_EL2 was written with INDEX 0 after it was not 0.

    ============ ================================================================
    pe           QEMU's vCPU index
    seq          the MSR's trace record is this PE's first one from ``seq`` on
    seen         the bitmap was looked at before this PE's first record from
                 ``seen`` on; the same as ``seq`` without a symbol
    began        no bit for these entries was set by the kernel before this
                 record: its first MRS of a nonzero INDEX; 0 if there was none
    place        where in the kernel: ``symbol+0x10``, or the bare address
    base, index  physical address of the buffer, INDEX before the flush
    noted        so many entries were read at the last MRS, the others at the flush
    entries      what the buffer held below INDEX, see below
    slots        the active memory slots: [id, first frame, pages, has a bitmap, the same
                 slot had the same bitmap at each MRS of INDEX]
    before       frames of the entries whose bit was 1 at the last MRS of INDEX
    clean        frames of the entries whose bit was 0 after the flush
    unlogged     number of frames that are in no slot with a bitmap
    invalid      number of different entries that name no page
    unprotected  frames of the entries whose bit became 1, in a slot that kept its bitmap,
                 between two looks that follow each other (at each MRS of INDEX, and after
                 the flush) while nobody was in a read-side critical section of kvm->srcu,
                 and nobody held kvm->slots_lock at one of the two looks
    unjudged     number of frames for which that is not known: nobody was there from the
                 last MRS on, or who was there could not be counted, and the bit was 1 by
                 then, was not looked at, or is in no bitmap or in another one
    error        why it could not be looked at: then slots, before, clean
                 and unprotected are empty and mean nothing; "" otherwise
    ============ ================================================================

``{"late": N}``
    The PE went on before flush N had been looked at: its line proves nothing.
``{"unusable": "why"}``
    Nothing could be watched from here on.
``{"end": N}``
    The last line of a run that came to its end, after N flushes.

A frame is a guest frame number, a guest physical address >> page_shift; sets of them are
written as in the agent's channel (``0-511,600``; ``-`` is empty).  ``entries`` is a text
of words in hexadecimal: ``40000007*512+1000`` stands for 512 entries, each 0x1000 above
the one before it, ``40000007`` for one.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from qemu_model import watchlog
from qemu_model.arch.entry import IPA, TTWL, ttwl_to_level
from qemu_model.arch.stage2 import FINAL_LEVEL
from qemu_model.pages import Ranges, count_pages, format_ranges, parse_ranges
from qemu_model.vmlinux.kvm import PAGES_MAX

VERSION = 3
ENTRIES_MAX = 1 << 18
"""A buffer of the largest size."""
AMOUNT_MAX = 1 << 22
"""Entries, ranges of ``before`` and ``unprotected``, and clean pages of all flushes of a run.
A few bytes of the file can stand for a whole buffer, so its size does not bound them; the
largest scenario has 800,000 entries."""
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Flush:
    """One flush; see the table in the module's docstring."""

    number: int
    pe: int
    seq: int
    seen: int
    began: int
    place: str
    base: int
    index: int
    noted: int
    entries: array[int]
    """Of type code Q."""
    slots: tuple[tuple[int, int, int, bool, bool], ...] = ()
    before: Ranges = ()
    clean: Ranges = ()
    unlogged: int = 0
    invalid: int = 0
    unprotected: Ranges = ()
    unjudged: int = 0
    error: str = ""


@dataclass(frozen=True)
class FlushLog:
    """All that is known of a run's flushes; ``absent`` says why there is nothing."""

    flushes: tuple[Flush, ...] = ()
    late: frozenset[int] = frozenset()
    page_shift: int = 12
    symbol: str | None = None
    no_srcu: str = ""
    absent: str = ""
    """Why nothing, or not everything, could be watched; empty if nothing was in the way."""
    cut: bool = field(default=False)
    """Whether the line ``end`` is missing."""


NO_FLUSHES = FlushLog(absent="nobody watched the flushes")


def ranges_of(ascending: Iterable[int]) -> Ranges:
    """Ascending numbers as ranges."""
    found: list[tuple[int, int]] = []
    first = last = -2
    for number in ascending:
        if number != last + 1:
            if first >= 0:
                found.append((first, last))
            first = number
        last = number
    if first >= 0:
        found.append((first, last))
    return tuple(found)


def block_of(entry: int, page_shift: int) -> tuple[int, int] | None:
    """What an entry covers: the frames whose number >> the first is the second.

    None for an entry that names no page.
    """
    level = ttwl_to_level(TTWL.get(entry))
    if not entry & 1 or not 0 <= level <= FINAL_LEVEL:
        return None
    width = (page_shift - 3) * (FINAL_LEVEL - level)
    return width, (entry & IPA.mask) >> page_shift + width


def format_entries(entries: Sequence[int]) -> str:
    """Entries as words, runs of equal steps as one."""
    words: list[str] = []
    at, count = 0, len(entries)
    while at < count:
        value, end = entries[at], at + 1
        if end < count and (step := entries[end] - value) > 0:
            while end < count and entries[end] - entries[end - 1] == step:
                end += 1
            if end - at > 2:
                words.append(f"{value:x}*{end - at}+{step:x}")
                at = end
                continue
        words.append(f"{value:x}")
        at += 1
    return " ".join(words)


def parse_entries(text: str) -> array[int]:
    """The inverse of ``format_entries``; raises ValueError."""
    found = array("Q")
    for word in text.split():
        value, star, run = word.partition("*")
        count, _, step = run.partition("+")
        number = int(count) if star else 1
        if not 0 < number <= ENTRIES_MAX - len(found):
            raise ValueError(f"{word[:40]!r}: more entries than a buffer has")
        start, distance = int(value, 16), int(step, 16) if star else 0
        if not 0 <= start + distance * (number - 1) <= _WORD or start < 0 or distance < 0:
            raise ValueError(f"{word[:40]!r} is no entry")
        if distance:
            found.extend(range(start, start + distance * number, distance))
        else:
            found.extend([start] * number)
    return found


def amount(flush: Flush) -> int:
    """What a flush adds to the sum that AMOUNT_MAX bounds."""
    ranges = len(flush.before) + len(flush.unprotected)
    return len(flush.entries) + ranges + count_pages(flush.clean)


def flush_line(flush: Flush) -> str:
    """The line of a flush, with its end of line."""
    # Not asdict(), which copies every entry.
    content = {spec.name: getattr(flush, spec.name) for spec in fields(Flush)}
    content["flush"] = content.pop("number")
    content["entries"] = format_entries(flush.entries)
    for name in ("before", "clean", "unprotected"):
        content[name] = format_ranges(content[name])
    return json.dumps(content) + "\n"


def read_flushes(path: Path) -> FlushLog:
    """Read a flushes.jsonl; raises UsageError when it is missing, foreign or damaged."""
    return watchlog.read(path, "flushes", _parse)


def _parse(head: watchlog.Line, lines: Iterator[watchlog.Line]) -> FlushLog:
    total = 0

    def record(line: dict[str, Any]) -> Flush:
        nonlocal total
        flush = _flush(line)
        total += amount(flush)
        if total > AMOUNT_MAX:
            raise ValueError(f"more than {AMOUNT_MAX} entries and pages")
        return flush

    log = watchlog.take_apart(head, lines, VERSION, "flush", record)
    symbol = log.head["symbol"]
    return FlushLog(
        log.records,
        log.late,
        watchlog.page_shift(log.head),
        None if symbol is None else str(symbol),
        str(log.head["no_srcu"]),
        log.absent,
        log.cut,
    )


def _flush(line: dict[str, Any]) -> Flush:
    values: dict[str, Any] = {"number": int(line["flush"])}
    for spec in fields(Flush)[1:]:
        value = line[spec.name]
        if spec.type == "int":
            values[spec.name] = int(value)
        elif spec.type == "str":
            values[spec.name] = str(value)
        elif spec.name == "entries":
            values[spec.name] = parse_entries(value)
        elif spec.name == "slots":
            values[spec.name] = tuple(
                (int(i), int(b), int(n), bool(log), bool(same)) for i, b, n, log, same in value
            )
        else:
            values[spec.name] = _frames(value)
    return Flush(**values)


def _frames(text: str) -> Ranges:
    """Frames that a look has sorted; raises ValueError for more than it does."""
    ranges = parse_ranges(text)
    if count_pages(ranges) > PAGES_MAX:
        raise ValueError(f"{text[:40]!r} are more than {PAGES_MAX} frames")
    return ranges
