# SPDX-License-Identifier: GPL-2.0-or-later
"""Was every page whose content changed reported by the final read?

The finding that matters most: a lost page is memory that a migration would not copy.
It rests on the agent's comparison of memory alone and trusts neither trace nor model.
"""

from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.model.dirtylog import CONTENT, Debt, SlotLog
from qemu_model.run import Run

SHOWN = 8
"""Pages that are explained one by one; the summary counts them all."""


def check(run: Run, history: History) -> list[Divergence]:
    """One divergence per slot life and page, up to SHOWN, the first with the total."""
    return [
        finding
        for slot in history.slots
        for finding in _slot(run, history, slot, [d for d in slot.lost() if d.source == CONTENT])
    ]


def _slot(run: Run, history: History, slot: SlotLog, debts: list[Debt]) -> list[Divergence]:
    return [
        Divergence(
            checker="lost",
            summary=f"page {debt.page} of slot {slot.slot} changed and was never reported "
            f"({len(debts)} such pages in this slot)",
            rule="I1 (KVM_GET_DIRTY_LOG: a page written since the last read is in the next)",
            required=f"the page in one of the {debt.missed} reads of the log after "
            f"line {debt.line} ({run.line(debt.line)})",
            seen="its content differs, its bit was 0 in all of them",
            slot=slot.slot,
            page=debt.page,
            round=slot.round_after(debt.line),
            records=run.records_about(slot.gpa + debt.page * 4096),
        )
        for debt in debts[:SHOWN]
    ]
