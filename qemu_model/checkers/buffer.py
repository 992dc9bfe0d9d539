# SPDX-License-Identifier: GPL-2.0-or-later
"""Did every hardware write go to memory that the kernel owns as that PE's buffer?

Asked of what the kernel's struct page said while the PE stood still (buffers.jsonl), and
of the trace.  Two kinds of findings, of which the second is the milder one:

- entries of the PE, not yet drained, are in memory that the kernel has given away;
- there are none, but the guest has run with this buffer, and HDBSS was still on for it
  when it was given away: entries could have been written there, and memory be read.

Given away is: the reference count that holds it is 0; or its pages are in the allocator's
free blocks; or struct page say that they are something else than when HDBSSBR_EL2 was
written.  The zero page is nobody's buffer at any time.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from qemu_model.arch.registers import (
    HDBSSPROD_INDEX,
    SysReg,
    hdbss_base,
    hdbss_bytes,
    hdbss_enabled,
    sz_reserved,
)
from qemu_model.buffers import BufferLook, Why
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.run import Run
from qemu_model.trace import Anomaly, Kind, RawRecord, describe

_KINDS = (Kind.RESET, Kind.WRITE, Kind.ENTRY, Kind.APPEND, Kind.EXIT, Kind.ANOMALY)
_RULE_WRITTEN = "I2 (from the append to the drain, a buffer is memory of that PE's vCPU)"
_RULE_RIGHT = (
    "I5, R_GKFDY (a buffer is freed only after HDBSS was switched off: as long as it is on, it "
    "may be written, and read speculatively)"
)
_RULE_OTHER = "I4 (a buffer belongs to one PE at a time)"
_RULE_MEMORY = "HDBSSBR_EL2.BADDR (a buffer is memory that was allocated for it)"


def check(run: Run, history: History) -> list[Divergence]:
    """The first finding of each kind on each buffer; what was not seen is in ``unchecked``.

    The milder kind is left out where the other one was found.
    """
    found: dict[tuple[int, str], Divergence] = {}
    watch = _Watch(run)
    for base, finding in watch.findings():
        if finding.rule != _RULE_RIGHT or (base, _RULE_WRITTEN) not in found:
            found.setdefault((base, finding.rule), finding)
    log = run.buffers
    if log.absent or log.cut:
        history.unchecked["buffer"] = log.absent or "buffers.jsonl has no end"
    elif watch.unseen:
        total = len(log.looks) + watch.missing
        history.unchecked["buffer"] = f"{len(watch.unseen)} of {total} looks: {watch.unseen[0]}"
    return list(found.values())


@dataclass
class _Pe:
    """One PE as its records tell it."""

    hdbssbr: int = 0
    used: RawRecord | None = None
    """The guest entry with HDBSS on and this buffer, as long as both are so."""
    in_guest: bool = False
    announced: dict[int, BufferLook] = field(default_factory=dict)
    """By HDBSSBR_EL2: how its memory was when it was written last."""
    appends: int = 0
    """Entries that no drain has taken, in the buffer ``filled``."""
    filled: int = 0
    frames: tuple[int, int] = (0, 0)
    """First and last page frame of these entries."""
    append: RawRecord | None = None
    """The last of them."""

    def appended(self, record: RawRecord, page_shift: int) -> None:
        frame = record[6] >> page_shift
        if self.filled != self.hdbssbr:
            # With another INDEX, which was kept elsewhere: what the one before holds is not
            # followed any more.
            self.appends = 0
        first, last = self.frames if self.appends else (frame, frame)
        self.frames = min(first, frame), max(last, frame)
        self.appends += 1
        self.filled, self.append = self.hdbssbr, record

    def take(self, hdbssbr: int) -> None:
        """Another buffer, or none; what was appended to the one before is still to be drained."""
        if hdbssbr != self.hdbssbr:
            self.hdbssbr, self.used = hdbssbr, None

    @property
    def live(self) -> bool:
        """Whether it writes to its buffer, or has something in it."""
        return self.used is not None and (self.in_guest or self.appends > 0)


class _Watch:
    """Follows the trace, and meets the looks where they were made."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._shift = run.buffers.page_shift
        self._pes: dict[int, _Pe] = defaultdict(_Pe)
        self._looks: dict[int, deque[BufferLook]] = defaultdict(deque)
        for look in sorted(run.buffers.looks, key=lambda look: (look.why is Why.END, look.seq)):
            self._looks[look.pe].append(look)
        self.unseen: list[str] = []
        self.missing = 0
        """Moments at which nobody has looked."""
        self._apart: set[int] = set()
        """PEs whose buffer no other PE has, as long as there are only appends in guests."""

    def findings(self) -> Iterator[tuple[int, Divergence]]:
        """Findings with the base of the buffer."""
        for record in self._run.trace.of(*_KINDS) if self._run.trace is not None else ():
            pe = self._pes[record[2]]
            flushed = False
            looks = self._looks[record[2]]
            while looks and looks[0].seq <= record[0] and looks[0].why is not Why.END:
                look = looks.popleft()
                flushed = look.why is Why.FLUSH
                yield from self._judge(pe, look)
            if record[1] == Kind.APPEND:
                if not pe.in_guest:
                    self._apart.clear()  # it may become live by this
                if record[2] not in self._apart:
                    yield from self._others(pe, record)
                pe.appended(record, self._shift)
                continue
            self._apart.clear()
            if record[1] == Kind.ANOMALY and record[4] == Anomaly.BUFFER_OUTSIDE_RAM:
                yield record[5], _outside(record)
            if _drains(record) and pe.appends and not flushed:
                self.missing += 1
                self.unseen.append("nobody looked at it")
            self._follow(pe, record)
        for number, looks in self._looks.items():
            for look in looks:
                yield from self._judge(self._pes[number], look)

    def _follow(self, pe: _Pe, record: RawRecord) -> None:
        kind, register, value = record[1], record[4], record[6]
        if kind == Kind.RESET:
            self._pes[record[2]] = _Pe(hdbssbr=register)
        elif kind == Kind.WRITE and register == SysReg.HDBSSBR_EL2:
            pe.take(value)
        elif kind == Kind.WRITE and register == SysReg.VTCR_EL2:
            if not hdbss_enabled(value):
                pe.used = None
        elif _drains(record):
            pe.appends = 0
        elif kind == Kind.ENTRY:
            pe.take(record[4])
            pe.in_guest = True
            pe.used = record if hdbss_enabled(value) else None
        elif kind == Kind.EXIT:
            pe.in_guest = False

    def _judge(self, pe: _Pe, look: BufferLook) -> Iterator[tuple[int, Divergence]]:
        if look.number in self._run.buffers.late:
            self.unseen.append("the PE did not wait until it had been looked at")
            return
        if look.error:
            self.unseen.append(look.error)
            return
        if look.why is Why.ANNOUNCED:
            # Whether it was the kernel's to give is asked when it is used.
            pe.announced[look.hdbssbr] = look
            return
        if look.free is None:
            self.unseen.append("vmlinux does not say which page_type a free block has")
        base = hdbss_base(look.hdbssbr)
        if pe.appends and look.hdbssbr == pe.filled:
            lost = _given_away(look, pe, *pe.frames)
            if lost:
                yield base, _written(pe, look, lost)
                return
        if pe.used is not None and look.hdbssbr == pe.hdbssbr:
            lost = _given_away(look, pe, look.first, look.first + look.frames - 1)
            if lost:
                yield base, _right(pe, look, lost)

    def _others(self, pe: _Pe, record: RawRecord) -> Iterator[tuple[int, Divergence]]:
        """An entry in what another PE has, and may write to."""
        slot, own = record[6], hdbss_bytes(pe.hdbssbr)
        apart = slot in own
        for number, other in self._pes.items():
            if other is pe or not other.live or sz_reserved(other.hdbssbr):
                continue
            theirs = hdbss_bytes(other.hdbssbr)
            apart &= theirs.stop <= own.start or own.stop <= theirs.start
            if slot in theirs:
                yield theirs.start, _others_buffer(record, number, other)
        if apart:
            self._apart.add(record[2])


def _drains(record: RawRecord) -> bool:
    """Whether the record makes INDEX 0."""
    written = record[1] == Kind.WRITE and record[4] == SysReg.HDBSSPROD_EL2
    return written and not HDBSSPROD_INDEX.get(record[6])


def _given_away(look: BufferLook, pe: _Pe, first: int, last: int) -> str:
    """Why the frames from ``first`` to ``last`` are not the PE's; empty if they are."""
    if first <= look.zero <= last:
        return f"page frame {look.zero:#x} is the kernel's empty_zero_page"
    first, last = max(first, look.first), min(last, look.first + look.frames - 1)
    if not look.owner:
        return f"the reference count of its first page, frame {look.first:#x}, is 0"
    for start, end in look.free or ():
        if start <= last and first <= end:
            return f"page frames {start:#x} to {end:#x} are in the allocator's free blocks"
    announced = pe.announced.get(look.hdbssbr)
    if announced is None:
        return ""
    before, now = _uses(announced), _uses(look)
    for frame in range(first, last + 1):
        was, became = before[frame - look.first], now[frame - look.first]
        if was != became:
            return f"page frame {frame:#x}, at first {_use(*was)}, is {_use(*became)}"
    return ""


def _uses(look: BufferLook) -> list[tuple[int, bool, int]]:
    """By frame: page_type, whether page.mapping is set, and the compound page that it is of."""
    return [(run.page_type, run.mapped, run.head) for run in look.runs for _ in range(run.count)]


def _use(page_type: int, mapped: bool, head: int) -> str:
    text = f"of page_type {page_type:#x} with{'' if mapped else 'out'} a mapping"
    return text if head < 0 else f"{text}, of the compound page {head:#x}"


def _registers(look: BufferLook) -> str:
    memory = hdbss_bytes(look.hdbssbr)
    return f"HDBSSBR_EL2 = {look.hdbssbr:#x}, [{memory.start:#x}, {memory.stop:#x})"


_MOMENT = {
    Why.APPENDED: "just after an append",
    Why.DRAIN: "when it read INDEX",
    Why.FLUSH: "when INDEX became 0",
    Why.WITHDRAWN: "when it was taken from the PE",
    Why.END: "when the machine ended",
}


def _written(pe: _Pe, look: BufferLook, lost: str) -> Divergence:
    records = [record for record in (pe.used, pe.append) if record is not None]
    return Divergence(
        checker="buffer",
        summary=f"PE {look.pe} has {pe.appends} entries in memory that is not its buffer any more "
        f"({_MOMENT[look.why]}, at {look.place})",
        rule=_RULE_WRITTEN,
        required=f"memory that the kernel owns, as when HDBSSBR_EL2 was written: "
        f"{_registers(look)}",
        seen=lost,
        records=tuple(map(describe, records)),
    )


def _right(pe: _Pe, look: BufferLook, lost: str) -> Divergence:
    return Divergence(
        checker="buffer",
        summary=f"PE {look.pe} may still write to a buffer that was given away, but has not "
        f"({_MOMENT[look.why]}, at {look.place})",
        rule=_RULE_RIGHT,
        required=f"memory that the kernel owns, as long as VTCR_EL2.HDBSS is 1: {_registers(look)}",
        seen=lost,
        records=() if pe.used is None else (describe(pe.used),),
    )


def _others_buffer(record: RawRecord, number: int, other: _Pe) -> Divergence:
    return Divergence(
        checker="buffer",
        summary=f"PE {record[2]} wrote an entry into the buffer of PE {number}",
        rule=_RULE_OTHER,
        required=f"a buffer of its own for PE {record[2]}",
        seen=f"PE {number} runs its guest with HDBSSBR_EL2 = {other.hdbssbr:#x}",
        records=(*(() if other.used is None else (describe(other.used),)), describe(record)),
    )


def _outside(record: RawRecord) -> Divergence:
    where = "physical address 0" if record[5] < 1 << 12 else f"{record[5]:#x}"
    return Divergence(
        checker="buffer",
        summary=f"PE {record[2]} was to write an entry to {where}, where no memory is",
        rule=_RULE_MEMORY,
        required="a buffer before VTCR_EL2.HDBSS is 1 at a guest entry",
        seen=f"an entry for physical address {record[5]:#x}",
        records=(describe(record),),
    )
