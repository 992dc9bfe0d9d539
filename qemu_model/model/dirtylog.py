# SPDX-License-Identifier: GPL-2.0-or-later
"""What a dirty log must contain: the relation between stores and reports.

The oracle is a relation, not an equality.  A page is *owed* from the moment that its
content changed, or that the PE appended an entry for it, until a read of the log
reports it.  A read that began later and does not report it makes it *late*; still
owed after the last read it is *lost*.  A page that is reported without having changed
is *spurious*.  Lost is wrong, the others are figures (KVM's contract for
KVM_GET_DIRTY_LOG; invariant I1 of a dirty log).

Time is the agent's program line: its operations are strictly one after the other,
and what the PEs did is placed between them by the agent's markers.  A store that
happens during a read may be in that read or in the next one.

Where a read leaves the bits standing, KVM_CLEAR_DIRTY_LOG pays like a read for what was
stored before it: userspace copies these pages after it (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

CONTENT = "content"
"""Owed because the memory comparison showed another content."""
ENTRY = "entry"
"""Owed because a PE appended an HDBSS entry."""


class Debt(NamedTuple):
    """A page that the log owes.

    ``line`` is where it came into being: only reads on later lines are due for it.
    ``seq`` is the trace record of the append, 0 for a content debt.  ``missed`` counts
    the reads that were due and did not report it.
    """

    page: int
    source: str
    line: int
    seq: int
    missed: int


Owed = dict[int, tuple[int, int]]
"""By page: the line since when it is owed, and the trace record."""


@dataclass
class Figures:
    """Counts over one slot's life, in pages unless said otherwise."""

    changed: int = 0
    reported: int = 0
    late: int = 0
    spurious: int = 0
    reads: int = 0
    """Reads of the log."""
    lateness: int = 0
    """The largest number of due reads that any page had to wait for."""


@dataclass
class SlotLog:
    """One life of one memory slot, from its creation to its deletion.

    Feed it in the order of the program's lines; ``lost()`` at the end.
    """

    slot: int
    gpa: int
    pages: int
    manual: bool = False
    """Reads leave bits standing until they are cleared (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)."""
    logging: bool = False
    figures: Figures = field(default_factory=Figures)
    _content: Owed = field(default_factory=dict)
    _entries: Owed = field(default_factory=dict)
    _again: Owed = field(default_factory=dict)
    """Pages with an entry while they are owed already, so that they were dirty before."""
    _differs: set[int] = field(default_factory=set)
    _read_lines: list[int] = field(default_factory=list)
    _paid: list[frozenset[int]] = field(default_factory=list)
    """What reads have reported, and what was cleared."""
    _paid_lines: list[int] = field(default_factory=list)
    _truth: set[int] = field(default_factory=set)
    _standing: frozenset[int] = frozenset()
    _dirty: set[int] = field(default_factory=set)
    """Pages that a read has reported and left dirty: the next clear makes them clean."""
    _logged_since: int = 0
    _compared: int = 0

    def set_logging(self, line: int, on: bool) -> None:
        """Logging was switched; with it off the bitmap is gone, and what it owed with it."""
        if on and not self.logging:
            self._logged_since = line
        if not on:
            for owed in (self._content, self._entries, self._again):
                owed.clear()
            self._standing = frozenset()
            self._dirty.clear()
        self.logging = on

    def appended(self, line: int, pages: Iterable[int], seq: int) -> None:
        """A PE made a descriptor dirty and appended an entry while ``line`` went on.

        When that happens during a read to a page that is owed, and so was dirty already, the
        read has made it clean in between, so that it cannot pay for this time.
        """
        if not self.logging:
            return
        for page in pages:
            if page in self._entries or page in self._content:
                self._again[page] = (line, seq)
            self._entries.setdefault(page, (line, seq))

    def snapshot(self, line: int) -> None:
        """The memory's content is known from here on."""
        self._compared = line

    def compared(self, line: int, pages: frozenset[int], ran: int | None) -> None:
        """``pages`` differ from the last snapshot or comparison.

        ``ran`` is the first line since then on which a vCPU was in the guest; no store
        can be older.  Reads from it to this line may have reported the change, but being
        concurrent none of them was due.
        """
        since = max(self._compared, ran or 0)
        logged = self.logging and self._logged_since <= since
        self._compared = line
        self._truth |= pages
        self.figures.changed += len(pages)
        if logged:
            between = self._paid[bisect_left(self._paid_lines, since) :]
            unpaid = pages.difference(*between, self._content)
            self._content.update(dict.fromkeys(unpaid, (since, 0)))

    def differs(self, pages: frozenset[int]) -> None:
        """A migrated copy differs from its source after the final read: lost beyond repair."""
        self._differs |= pages

    def read(self, line: int, pages: frozenset[int], quiet: bool) -> None:
        """The log was read and reported ``pages``.

        ``quiet``: no vCPU has been in the guest since the last comparison, so that the
        truth is known and what it does not contain is spurious.
        """
        figures = self.figures
        figures.reads += 1
        figures.reported += len(pages)
        if quiet:
            due = self._truth.union(self._standing, self._content, self._entries)
            figures.spurious += len(pages - due)
        for owed in (self._content, self._entries):
            for page in owed.keys() & pages:
                missed = self._missed(owed.pop(page)[0])
                if self.manual:
                    self._dirty.add(page)
                if missed:
                    figures.late += owed is self._content
                    figures.lateness = max(figures.lateness, missed)
        self._read_lines.append(line)
        self._pay(line, pages)
        self._owe_again(line)
        self._again.clear()
        if self.manual:
            self._standing = pages
        self._truth.clear()

    def cleared(self, line: int, pages: frozenset[int]) -> None:
        """The bits of ``pages`` were cleared by KVM_CLEAR_DIRTY_LOG.

        What was appended meanwhile is not paid for pages that were dirty until they were cleared.
        Others may have been clean with their bit set (KVM_DIRTY_LOG_INITIALLY_SET, a report that
        was spurious): such a store can be older than the clear, which then pays for it.
        """
        self._standing -= pages
        self._pay(line, pages)
        for owed in (self._content, self._entries):
            for page in owed.keys() & pages:
                if owed[page][0] < line or page not in self._dirty:
                    del owed[page]
        self._dirty -= pages
        self._owe_again(line)

    def _owe_again(self, line: int) -> None:
        """What was appended a second time on this line is owed, if not since long ago."""
        for page, debt in self._again.items():
            if debt[0] == line:
                self._entries.setdefault(page, debt)

    def _pay(self, line: int, pages: frozenset[int]) -> None:
        self._paid.append(pages)
        self._paid_lines.append(line)

    def round_after(self, line: int) -> int:
        """Number, from 1, of the first read on a later line than ``line``."""
        return 1 + bisect_right(self._read_lines, line)

    def lost(self) -> list[Debt]:
        """What is still owed although a read was due for it, by page."""
        found = [
            Debt(page, source, line, seq, missed)
            for source, owed in ((CONTENT, self._content), (ENTRY, self._entries))
            for page, (line, seq) in owed.items()
            if (missed := self._missed(line))
        ]
        last = self._read_lines[-1] if self._read_lines else 0
        found += [Debt(page, CONTENT, last, 0, 1) for page in self._differs]
        return sorted(found)

    def _missed(self, line: int) -> int:
        """Reads on later lines than ``line``: all of them if the page is still owed."""
        return len(self._read_lines) - bisect_right(self._read_lines, line)
