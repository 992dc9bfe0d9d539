# SPDX-License-Identifier: GPL-2.0-or-later
"""The moments of a run that a person waits for, found in trace records.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum

from qemu_model.arch import descriptor as leaf_bits
from qemu_model.arch.entry import Entry
from qemu_model.arch.registers import HDBSSPROD_INDEX, Hdbssbr, Hdbssprod, SysReg
from qemu_model.arch.stage2 import params
from qemu_model.gdbstub.explain import entry_range, exit_words
from qemu_model.trace import FLAG_INDEX, Kind, RawRecord, describe


class Moment(StrEnum):
    """What ``next`` takes."""

    APPEND = "append"
    REFUSAL = "refusal"
    FLUSH = "flush"
    ENTRY = "entry"
    EXIT = "exit"


_KINDS = {
    Kind.APPEND: Moment.APPEND,
    Kind.REFUSE: Moment.REFUSAL,
    Kind.ENTRY: Moment.ENTRY,
    Kind.EXIT: Moment.EXIT,
}


class Moments:
    """Follows the records of ``pes`` PEs; a flush is HDBSSPROD_EL2.INDEX back at 0."""

    def __init__(self, pes: int, name: Callable[[int], str]) -> None:
        self._name = name
        self._index = [0] * pes
        self._vtcr = [0] * pes
        self._flushed = 0
        self.last_exit: list[str] = [""] * pes
        """Each PE's last exit in words, empty before the first."""

    def take(self, record: RawRecord) -> Moment | None:
        """Follow a record, and say what moment it is."""
        _, kind, pe, flags, a, b, c, _, e, _ = record
        if pe >= len(self._index):
            return None
        before = self._index[pe]
        if kind == Kind.APPEND:
            self._index[pe] = (flags & FLAG_INDEX) + 1
        elif kind == Kind.RESET:
            self._index[pe], self._vtcr[pe] = Hdbssprod(b).index, c
        elif kind == Kind.EXIT:
            self.last_exit[pe] = exit_words(a, b, c, e)
        elif kind == Kind.WRITE and a == SysReg.VTCR_EL2:
            self._vtcr[pe] = c
        elif kind == Kind.WRITE and a == SysReg.HDBSSPROD_EL2:
            self._index[pe] = HDBSSPROD_INDEX.get(c)
            if before and not self._index[pe]:
                self._flushed = before
                return Moment.FLUSH
        return _KINDS.get(Kind(kind)) if kind in set(Kind) else None

    def words(self, record: RawRecord, moment: Moment) -> Iterator[str]:
        """The record, and what it means; right after it was taken."""
        _, _, pe, flags, a, b, c, d, e, f = record
        yield describe(record)
        match moment:
            case Moment.APPEND:
                yield f"  entry {flags & FLAG_INDEX}: " + entry_range(
                    Entry.decode(b), params(self._vtcr[pe])
                )
                yield (
                    f"  descriptor at {d:#x}: {leaf_bits.dirty_state(e).value} -> "
                    f"{leaf_bits.dirty_state(f).value}"
                )
            case Moment.REFUSAL:
                prod, base = Hdbssprod(c), Hdbssbr(f)
                why = "FSC is not 0" if prod.fsc else "the buffer is full"
                yield f"  {why}: INDEX {prod.index} of {base.capacity}; a write to IPA {a:#x}"
            case Moment.FLUSH:
                yield f"  INDEX {self._flushed} -> 0 at {self._name(d)}"
            case Moment.ENTRY:
                yield f"  into the guest at {f:#x} with INDEX {Hdbssprod(b).index}"
            case Moment.EXIT:
                yield f"  {exit_words(a, b, c, e)}, from {f:#x}"
