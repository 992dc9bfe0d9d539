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
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

CONTENT = "content"
"""Owed because the memory comparison showed another content."""
ENTRY = "entry"
"""Owed because a PE appended an HDBSS entry."""


@dataclass
class Debt:
    """A page that the log owes.

    ``line`` is where it came into being: only reads on later lines are due for it.
    ``seq`` is the trace record of the append, 0 for a content debt.  ``missed`` counts
    the reads that were due and did not report it.
    """

    page: int
    source: str
    line: int
    seq: int = 0
    missed: int = 0


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
    _owed: dict[tuple[str, int], Debt] = field(default_factory=dict)
    _reads: list[tuple[int, frozenset[int]]] = field(default_factory=list)
    _truth: set[int] = field(default_factory=set)
    _logged_since: int = 0
    _compared: int = 0
    _standing: set[int] = field(default_factory=set)
    _again: dict[int, Debt] = field(default_factory=dict)

    def set_logging(self, line: int, on: bool) -> None:
        """Logging was switched; with it off the bitmap is gone, and what it owed with it."""
        if on and not self.logging:
            self._logged_since = line
        if not on:
            self._owed.clear()
            self._again.clear()
            self._standing.clear()
        self.logging = on

    def appended(self, line: int, pages: Iterable[int], seq: int) -> None:
        """A PE made a descriptor dirty and appended an entry while ``line`` went on.

        When that happens twice to a page during one read, the read has made it clean in
        between, so that it cannot pay for the second time.
        """
        if not self.logging:
            return
        for page in pages:
            debt = Debt(page, ENTRY, line, seq)
            if self._owed.setdefault((ENTRY, page), debt) is not debt:
                self._again[page] = debt

    def snapshot(self, line: int) -> None:
        """The memory's content is known from here on."""
        self._compared = line

    def compared(self, line: int, pages: frozenset[int], ran: int | None) -> None:
        """``pages`` differ from the last snapshot or comparison.

        ``ran`` is the first line since then on which a vCPU was in the guest; no store
        can be older.  Reads from it to this line may have reported the change.
        """
        since = max(self._compared, ran or 0)
        logged = self.logging and self._logged_since <= since
        self._compared = line
        self._truth |= pages
        self.figures.changed += len(pages)
        if not logged:
            return
        between = [(at, reported) for at, reported in self._reads if at >= since]
        for page in pages:
            if any(page in reported for _, reported in between):
                continue
            # A concurrent read need not have seen it, so none of them was due.
            self._owed.setdefault((CONTENT, page), Debt(page, CONTENT, since))

    def differs(self, line: int, pages: frozenset[int]) -> None:
        """A migrated copy differs from its source after the final read: lost beyond repair."""
        for page in pages:
            self._owed[CONTENT, page] = Debt(page, CONTENT, line, missed=1)

    def read(self, line: int, pages: frozenset[int], quiet: bool) -> None:
        """The log was read and reported ``pages``.

        ``quiet``: no vCPU has been in the guest since the last comparison, so that the
        truth is known and what it does not contain is spurious.
        """
        self.figures.reads += 1
        self.figures.reported += len(pages)
        self._reads.append((line, pages))
        paid = set()
        for key, debt in list(self._owed.items()):
            if debt.page in pages:
                if debt.missed:
                    self.figures.late += debt.source == CONTENT
                    self.figures.lateness = max(self.figures.lateness, debt.missed)
                paid.add(debt.page)
                del self._owed[key]
            elif debt.line < line:
                debt.missed += 1
        for page, debt in self._again.items():
            if debt.line == line:
                self._owed[ENTRY, page] = debt
        self._again.clear()
        if quiet:
            self.figures.spurious += len(pages - self._truth - self._standing - paid)
        if self.manual:
            self._standing = set(pages)
        self._truth.clear()

    def cleared(self, pages: frozenset[int]) -> None:
        """The bits of ``pages`` were cleared by KVM_CLEAR_DIRTY_LOG."""
        self._standing -= pages

    def round_after(self, line: int) -> int:
        """Number, from 1, of the first read on a later line than ``line``."""
        return 1 + sum(1 for at, _ in self._reads if at <= line)

    def lost(self) -> list[Debt]:
        """What is still owed although a read was due for it, by page."""
        return sorted(
            (debt for debt in self._owed.values() if debt.missed), key=lambda debt: debt.page
        )
