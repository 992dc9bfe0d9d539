# SPDX-License-Identifier: GPL-2.0-or-later
"""What flushes.jsonl and buffers.jsonl have in common: JSON, an object on each line.

The first line has the version.  Then come the records, each with a number under its key,
and lines of three other kinds: ``{"late": N}``, ``{"unusable": "why"}``, ``{"end": N}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from qemu_model.bounded import open_bounded
from qemu_model.errors import UsageError

T = TypeVar("T")
Line = dict[str, Any]
PAGE_SHIFTS = (12, 14, 16)
_FILE_MAX = 128 << 20
"""Bytes of a file: its writers give up at half of that."""
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What reading a file raises that is none of ours."""


@dataclass(frozen=True)
class Lines(Generic[T]):
    """A log taken apart; ``absent`` is the first line ``unusable``."""

    head: Line
    records: tuple[T, ...]
    late: frozenset[int]
    absent: str
    cut: bool
    """Whether the line ``end`` is missing, or names another number of records."""


def other_line(**content: object) -> str:
    """Any line but a record, with its end of line."""
    return json.dumps(content) + "\n"


def read(path: Path, what: str, parse: Callable[[Line, Iterator[Line]], T]) -> T:
    """What ``parse`` makes of the first line and the others.

    UsageError when the file is missing, damaged or too large, and for what ``parse`` raises
    when it meets what it does not expect.  A kernel under test decides how long the file is,
    so that its lines are taken one by one.
    """
    try:
        with open_bounded(path, _FILE_MAX) as file:
            lines = (json.loads(line) for line in file)
            return parse(next(lines, {}), lines)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; the run directory is incomplete") from error
    except _DAMAGE as error:
        raise UsageError(f"{path}: {error!r}; not a record of {what} of this bench") from error


def page_shift(head: Line) -> int:
    """The page_shift of a first line: that of a granule; ValueError for any other."""
    shift = int(head["page_shift"])
    if shift not in PAGE_SHIFTS:
        raise ValueError(f"page_shift is {shift}: pages are of 4, 16 or 64 KB")
    return shift


def take_apart(
    head: Line, lines: Iterable[Line], version: int, key: str, record: Callable[[Line], T]
) -> Lines[T]:
    """Sort the lines after the first one of a log whose records have a number under ``key``.

    Raises what a damaged log leads to, ValueError among it; ``read`` is for that.
    """
    if head["version"] != version:
        raise ValueError(f"version {head['version']}; this hdbss reads version {version}")
    records: list[T] = []
    late: set[int] = set()
    absent, cut = "", True
    for line in lines:
        if key in line:
            records.append(record(line))
        elif "late" in line:
            late.add(int(line["late"]))
        elif "unusable" in line:
            absent = absent or str(line["unusable"])
        elif "end" in line:
            cut = int(line["end"]) != len(records)
        else:
            raise ValueError(f"a line with {sorted(line)[:3]}")
    return Lines(head, tuple(records), frozenset(late), absent, cut)
