# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks into the kernel's memory at each flush of an HDBSS buffer and writes down what is there.

Whoever intercepts the PEs calls a ``FlushWatcher`` while the PE in question stands still.
Nothing is judged here: that is ``checkers/flushed.py``.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from pathlib import Path

from qemu_model.arch.registers import HDBSSPROD_INDEX, hdbss_base, hdbss_capacity, sz_reserved
from qemu_model.flushes import AMOUNT_MAX, VERSION, Flush, flush_line, ranges_of
from qemu_model.machine.watchfile import WatchFile
from qemu_model.pages import Ranges
from qemu_model.vmlinux.kernelmap import KernelMap
from qemu_model.vmlinux.kvm import Kvm, Look, MemSlot
from qemu_model.vmlinux.memory import KernelMemory, Ram, Unreadable
from qemu_model.vmlinux.srcu import count_readers

BYTES_MAX = 64 << 20
"""Size of flushes.jsonl at which watching ends: a kernel may flush for ever."""
_TOO_MUCH = f"the flushes have more than {AMOUNT_MAX} entries and pages"
_NONE: array[int] = array("Q")


@dataclass(frozen=True)
class FlushPlan:
    """What a run needs to watch flushes.

    ``symbol`` is the function at whose return a flush is complete, ``returns`` the virtual
    addresses of its RETs; without it, a flush is complete when INDEX becomes 0.
    """

    kernel: KernelMap
    symbol: str | None = None
    returns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stop:
    """A PE that stands still at an instruction which it has not executed yet.

    ``seq`` is the number of the next trace record, whosever it will be; ``hdbssbr`` and
    ``vttbr`` are those with which this PE has entered its guest last, ``hdbssprod`` is the
    register now.
    """

    pe: int
    seq: int
    pc: int
    hdbssbr: int
    hdbssprod: int
    vttbr: int


@dataclass(frozen=True)
class _Seen:
    """One look at the bitmaps."""

    slots: frozenset[MemSlot]
    look: Look

    @property
    def before(self) -> Ranges:
        return ranges_of(self.look.dirty)


@dataclass(frozen=True)
class _Noted:
    """What was seen at the MRS of INDEX: the last one, and ``first`` of them (its seq)."""

    first: int
    base: int
    entries: array[int]
    slots: frozenset[MemSlot]
    """Those that were there, with the same bitmap, each time."""
    seen: _Seen | None
    """None where it could not be looked at."""
    unprotected: frozenset[int]
    """Frames whose bit became 1 between one MRS and the next."""
    late: bool = False


@dataclass(frozen=True)
class _Taken:
    """A flush, the guest's VTTBR_EL2, and what was noted before."""

    flush: Flush
    vttbr: int
    noted: _Noted | None


@dataclass
class _Pe:
    noted: _Noted | None = None
    taken: list[_Taken] = field(default_factory=list)
    """Flushes whose bits are to be looked at when the symbol returns."""


class FlushWatcher:
    """Writes ``out`` (flushes.jsonl); see qemu_model/flushes.py for what the facts mean.

    ``ram`` is the file of the machine's RAM.  No method raises for what the kernel under
    test has done; InfrastructureError if ``out`` cannot be written.
    """

    def __init__(self, plan: FlushPlan, ram: Path, out: Path) -> None:
        self._plan = plan
        self._ram_path = ram
        self._ram: Ram | None = None
        self._kvm: Kvm | None = None
        self._pes: dict[int, _Pe] = {}
        self._count = 0
        self._amount = 0
        """What was taken of AMOUNT_MAX."""
        self._last: int | _Pe | None = None
        """The last call: the number of the flush, or whose beginning was noted."""
        shift = plan.kernel.page_shift
        self._out = WatchFile(
            out,
            version=VERSION,
            page_shift=shift,
            symbol=plan.symbol,
            no_srcu="" if plan.kernel.srcu is not None else plan.kernel.no_srcu,
        )

    def drain_begins(self, stop: Stop) -> None:
        """MRS of HDBSSPROD_EL2 with INDEX not 0: note the entries, and their bits before."""
        if not self._ready():
            return
        pe = self._pes.setdefault(stop.pe, _Pe())
        first = pe.noted.first if pe.noted is not None else stop.seq
        base, entries, _ = self._buffer(stop)
        seen = self._look(stop.vttbr, entries)
        slots = seen.slots if seen is not None else frozenset()
        unprotected: frozenset[int] = frozenset()
        if pe.noted is not None:
            slots &= pe.noted.slots
            unprotected = pe.noted.unprotected
            if seen is not None:
                unprotected |= _between(pe.noted.seen, seen)[0]
        pe.noted = _Noted(first, base, entries, slots, seen, unprotected)
        self._last = pe

    def flush(self, stop: Stop) -> None:
        """MSR of HDBSSPROD_EL2 with INDEX 0 where it is not 0: these entries are consumed.

        Without a symbol their bits have to be in the bitmap by now.
        """
        if not self._ready():
            return
        pe = self._pes.setdefault(stop.pe, _Pe())
        noted, pe.noted = pe.noted, None
        base, entries, error = self._buffer(stop)
        known = noted.entries[: len(entries)] if noted is not None and noted.base == base else _NONE
        before = noted.seen.before if noted is not None and noted.seen is not None else ()
        self._last = None
        if not self._room(len(entries) + len(before)):
            return
        self._count += 1
        found = Flush(
            number=self._count,
            pe=stop.pe,
            seq=stop.seq,
            seen=stop.seq,
            began=noted.first if noted is not None else 0,
            place=self._plan.kernel.place(stop.pc),
            base=base,
            index=stop.hdbssprod & HDBSSPROD_INDEX.mask,
            noted=len(known),
            # What the kernel writes over an entry that it has consumed is its own affair.
            entries=known + entries[len(known) :],
            before=before,
            error=error,
        )
        pe.taken.append(_Taken(found, stop.vttbr, noted))
        self._last = self._count
        if self._plan.symbol is None:
            self._conclude(pe, stop.seq)

    def returned(self, stop: Stop) -> None:
        """The function that ``--flush-symbol`` names returns."""
        pe = self._pes.get(stop.pe)
        if self._ready() and pe is not None and pe.taken:
            self._last = pe.taken[-1].flush.number
            self._conclude(pe, stop.seq)

    def late(self) -> None:
        """The last call came too late: the PE had not waited for its end."""
        if isinstance(self._last, _Pe):
            if self._last.noted is not None:
                self._last.noted = replace(self._last.noted, late=True)
        elif self._last is not None:
            self._out.other(late=self._last)
        self._last = None

    def close(self) -> None:
        """Write what is still open, and the end."""
        for pe in self._pes.values():
            for taken in pe.taken:
                why = f"{self._plan.symbol} did not return after it"
                self._out.write(flush_line(replace(taken.flush, before=(), error=why)))
            pe.taken.clear()
        self._out.close(self._count)
        if self._ram is not None:
            self._ram.close()

    def _ready(self) -> bool:
        """Whether memory can be read; the first call finds out, and writes down if not."""
        if self._out.usable and self._kvm is None:
            try:
                self._ram = Ram(self._ram_path)
                memory = KernelMemory(self._ram, self._plan.kernel)
                self._kvm = Kvm(memory, self._plan.kernel)
            except Unreadable as error:
                self._out.give_up(str(error))
        self._out.bound(BYTES_MAX)
        return self._out.usable

    def _room(self, amount: int) -> bool:
        """Whether so many entries or pages are still to be written; gives up if not."""
        if self._out.usable and self._amount + amount > AMOUNT_MAX:
            self._out.give_up(_TOO_MUCH)
        if self._out.usable:
            self._amount += amount
        return self._out.usable

    def _buffer(self, stop: Stop) -> tuple[int, array[int], str]:
        """Base and entries below INDEX; an error where the buffer is not in RAM."""
        assert self._ram is not None
        index = stop.hdbssprod & HDBSSPROD_INDEX.mask
        base = hdbss_base(stop.hdbssbr)
        if sz_reserved(stop.hdbssbr):
            return base, _NONE, f"HDBSSBR_EL2={stop.hdbssbr:#x} has a reserved SZ"
        count = min(index, hdbss_capacity(stop.hdbssbr))
        try:
            data = self._ram.read(base, 8 * count)
        except Unreadable as error:
            return base, _NONE, f"the buffer: {error}"
        return base, array("Q", struct.unpack(f"<{count}Q", data)), ""

    def _look(self, vttbr: int, entries: array[int]) -> _Seen | None:
        assert self._kvm is not None
        try:
            slots, look = self._kvm.look(vttbr, entries)
        except Unreadable:
            return None
        return _Seen(frozenset(slots), look)

    def _conclude(self, pe: _Pe, seen: int) -> None:
        """The kernel says that it is done with these entries: look at their bits."""
        assert self._kvm is not None
        for taken in pe.taken:
            done = replace(taken.flush, seen=seen)
            noted = taken.noted
            known = noted.slots if noted is not None else frozenset()
            try:
                if not done.error:
                    slots, look = self._kvm.look(taken.vttbr, done.entries)
                    bare, unjudged = _between(
                        noted.seen if noted is not None else None, _Seen(frozenset(slots), look)
                    )
                    if noted is not None:
                        bare |= noted.unprotected
                    done = replace(
                        done,
                        slots=tuple(
                            (s.number, s.base, s.pages, bool(s.bitmap), s in known) for s in slots
                        ),
                        clean=ranges_of(look.clean),
                        unlogged=look.unlogged,
                        invalid=look.invalid,
                        unprotected=ranges_of(sorted(bare)),
                        unjudged=unjudged,
                    )
                    if not self._room(len(look.clean) + len(done.unprotected)):
                        raise Unreadable(_TOO_MUCH)
            except Unreadable as error:
                done = replace(
                    done, slots=(), before=(), clean=(), unprotected=(), error=str(error)
                )
            self._out.write(flush_line(done))
            if noted is not None and noted.late:
                self._out.other(late=done.number)
        pe.taken.clear()


def _between(begun: _Seen | None, ended: _Seen) -> tuple[frozenset[int], int]:
    """What became of bits between two looks while nobody kept the memory slots.

    Frames whose bit became 1, and the number of those for which nobody knows.
    """
    unknown = len(ended.look.dirty) + ended.look.unlogged
    if begun is None or begun.look.readers is None or ended.look.readers is None:
        return frozenset(), unknown
    # The time of which it is counted is longer than the one between the bits.
    if count_readers(begun.look.readers[0], ended.look.readers[1]):
        return frozenset(), 0
    kept = sorted(slot.base for slot in begun.slots & ended.slots if slot.bitmap)
    ends = {slot.base: slot.base + slot.pages for slot in ended.slots}
    bare = frozenset(
        frame
        for frame in set(begun.look.clean).intersection(ended.look.dirty)
        if (at := bisect_right(kept, frame)) and frame < ends[kept[at - 1]]
    )
    return bare, unknown - len(bare)
