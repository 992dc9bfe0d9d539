# SPDX-License-Identifier: GPL-2.0-or-later
"""Is every entry that a PE appended in a bitmap by the final read?

Stricter than ``lost`` about the kernel's bookkeeping: it sees an entry that was
dropped even when the page's bit was set for another reason in an earlier round.
"""

from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.checkers.lost import SHOWN, owed, unpaid
from qemu_model.model.dirtylog import ENTRY
from qemu_model.run import Run


def check(run: Run, history: History) -> list[Divergence]:
    """One divergence for each entry that no due read reported, up to SHOWN."""
    debts = owed(history, ENTRY)
    return [
        unpaid(
            run,
            slot,
            debt,
            checker="drained",
            summary=f"the entry of trace record {debt.seq} for page {debt.page} of slot "
            f"{slot.slot} reached no bitmap ({len(debts)} such entries)",
            rule="I2, I3 (every slot below INDEX is consumed before INDEX is reset)",
            seen="its bit was 0 in all of them",
        )
        for slot, debt in debts[:SHOWN]
    ]
