# SPDX-License-Identifier: GPL-2.0-or-later
"""``srcu``: pages are marked by somebody whom the end of their memory slot waits for.

A flush during which bits of its pages became 1, while nobody was in a read-side critical
section of ``kvm->srcu`` and nobody held ``kvm->slots_lock``, used memory slots that
could have been freed under its hands.
"""

from bisect import bisect_right

from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.flushes import Flush, block_of
from qemu_model.pages import has_page
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
    known = [
        flush
        for flush in log.flushes
        if flush.number not in log.late and not flush.error and flush.readers >= 0
    ]
    if log.absent or log.cut:
        history.unchecked["srcu"] = log.absent or "flushes.jsonl has no end"
    elif unknown := len(log.flushes) - len(known):
        why = "nobody knows who was there from the MRS of INDEX to its reset"
        history.unchecked["srcu"] = f"{unknown} of {len(log.flushes)} flushes: {why}"
    bare = [
        (flush, marked)
        for flush in known
        if flush.readers == 0 and (marked := _marked(flush, log.page_shift)) is not None
    ]
    if not bare:
        return []
    flush, (frame, slot) = bare[0]
    return [
        Divergence(
            checker="srcu",
            summary=f"flush {flush.number} (PE {flush.pe}, at {flush.place}) marked pages that "
            f"kvm->srcu did not protect ({len(bare)} of {len(log.flushes)} flushes)",
            rule=_RULE,
            required="between the MRS of INDEX and its reset somebody is in a read-side critical "
            "section of kvm->srcu, or holds kvm->slots_lock",
            seen=f"the bit of the page became 1 meanwhile (guest frame {frame:#x}), and nobody did",
            slot=slot,
        )
    ]


def _marked(flush: Flush, page_shift: int) -> tuple[int, int] | None:
    """Frame and slot of a page whose bit became 1 during the flush.

    For a block that is its first page.  A slot that is new, or has a new bitmap, may have
    had its bits set by others.
    """
    slots = sorted((slot for slot in flush.slots if slot[3] and slot[4]), key=lambda s: s[1])
    starts = [base for _, base, *_ in slots]
    for entry in flush.entries:
        if (block := block_of(entry, page_shift)) is None:
            continue
        frame = block[1] << block[0]
        at = bisect_right(starts, frame) - 1
        if (
            at >= 0
            and frame < starts[at] + slots[at][2]
            and not has_page(flush.before, frame)
            and not has_page(flush.clean, frame)
        ):
            return frame, slots[at][0]
    return None
