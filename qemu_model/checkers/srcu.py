# SPDX-License-Identifier: GPL-2.0-or-later
"""``srcu``: pages are marked by somebody whom the end of their memory slot waits for.

A flush during which bits of its pages became 1, while nobody was in a read-side critical
section of ``kvm->srcu`` and nobody held ``kvm->slots_lock``, used memory slots that
could have been freed under its hands.
"""

from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.run import Run

_RULE = "virt/kvm/locking.rst (kvm->srcu protects kvm->memslots: it is held while they are used)"


def check(run: Run, history: History) -> list[Divergence]:
    """At most one divergence, for the first such flush.

    Whether flushes are what the trace says is the matter of ``flushed``.
    """
    log = run.flushes
    if log.no_srcu:
        history.unchecked["srcu"] = log.no_srcu
        return []
    known = [flush for flush in log.flushes if flush.number not in log.late and not flush.error]
    judged = sum(not flush.unjudged for flush in known)
    if log.absent or log.cut:
        history.unchecked["srcu"] = log.absent or "flushes.jsonl has no end"
    elif judged < len(log.flushes):
        history.unchecked["srcu"] = (
            f"{len(log.flushes) - judged} of {len(log.flushes)} flushes: nobody knows whether "
            f"kvm->srcu protected what they marked"
        )
    bare = [flush for flush in known if flush.unprotected]
    if not bare:
        return []
    flush, frame = bare[0], bare[0].unprotected[0][0]
    return [
        Divergence(
            checker="srcu",
            summary=f"flush {flush.number} (PE {flush.pe}, at {flush.place}) marked pages that "
            f"kvm->srcu did not protect ({len(bare)} of {len(log.flushes)} flushes)",
            rule=_RULE,
            required="from the MRS of INDEX until the pages are marked somebody is in a read-side "
            "critical section of kvm->srcu, or holds kvm->slots_lock",
            seen=f"the bit of the page became 1 meanwhile (guest frame {frame:#x}), and nobody did",
            slot=next((n for n, base, size, *_ in flush.slots if 0 <= frame - base < size), None),
        )
    ]
