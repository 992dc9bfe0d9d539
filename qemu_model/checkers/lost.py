# SPDX-License-Identifier: GPL-2.0-or-later
"""Was every page whose content changed reported by the final read?

The finding that matters most: a lost page is memory that a migration would not copy.
It rests on the agent's comparison of memory alone and trusts neither trace nor model.
"""

from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.model.dirtylog import CONTENT, Debt, SlotLog
from qemu_model.program import PAGE
from qemu_model.run import Run

SHOWN = 4
"""Pages that are explained one by one; the first one says how many there are."""


def check(run: Run, history: History) -> list[Divergence]:
    """One divergence for each lost page, up to SHOWN."""
    debts = owed(history, CONTENT)
    return [
        unpaid(
            run,
            slot,
            debt,
            checker="lost",
            summary=f"page {debt.page} of slot {slot.slot} changed and was never reported "
            f"({len(debts)} such pages)",
            rule="I1 (KVM_GET_DIRTY_LOG: a page written since the last read is in the next)",
            seen="its content differs, its bit was 0 in all of them",
        )
        for slot, debt in debts[:SHOWN]
    ]


def owed(history: History, source: str) -> list[tuple[SlotLog, Debt]]:
    """Everything that was still owed after the last read, for one reason.

    A fault of an HDBSS write that ended KVM_RUN is no silent loss: what was owed until then is
    forgiven, with a note.
    """
    found = [
        (slot, debt) for slot in history.slots for debt in slot.lost() if debt.source == source
    ]
    silent = [(slot, debt) for slot, debt in found if debt.line > history.told]
    if len(silent) < len(found):
        history.unchecked["lost"] = (
            f"line {history.told} told userspace that entries were lost; "
            f"{len(found) - len(silent)} pages until then were reported by no read"
        )
    return silent


def unpaid(
    run: Run, slot: SlotLog, debt: Debt, *, checker: str, summary: str, rule: str, seen: str
) -> Divergence:
    """The finding that no due read reported a page, whyever it was owed."""
    return Divergence(
        checker=checker,
        summary=summary,
        rule=rule,
        required=f"the page in one of the {debt.missed} reads of the log after "
        f"line {debt.line} ({run.line(debt.line)})",
        seen=seen,
        slot=slot.slot,
        page=debt.page,
        round=slot.round_after(debt.line),
        records=run.records_about(slot.gpa + debt.page * PAGE),
    )
