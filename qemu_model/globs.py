# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing from a table by shell-style patterns, as the command line does."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol, TypeVar

from qemu_model.errors import UsageError


class Named(Protocol):
    """What a table has rows of."""

    @property
    def name(self) -> str:
        """The name that a pattern is compared with."""


Row = TypeVar("Row", bound=Named)


def matching(
    rows: Sequence[Row], patterns: Sequence[str], what: str, listed: str
) -> tuple[Row, ...]:
    """The rows whose names match one of the patterns, in the table's order; no pattern: all.

    UsageError when a pattern matches nothing: that no ``what`` matches, and that the
    command ``listed`` prints them all.
    """
    for pattern in patterns:
        if not any(fnmatchcase(row.name, pattern) for row in rows):
            raise UsageError(f"no {what} matches {pattern!r}; `{listed}` prints them all")
    return tuple(
        row for row in rows if not patterns or any(fnmatchcase(row.name, p) for p in patterns)
    )
