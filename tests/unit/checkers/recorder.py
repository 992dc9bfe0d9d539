# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the trace of what reference PEs do, as an interceptor would."""

from qemu_model.arch.registers import VTCR_HA, VTCR_HD, VTCR_HDBSS, ProdFsc, SysReg
from qemu_model.arch.syndrome import Abort
from qemu_model.arch.syndrome import Kind as FaultKind
from qemu_model.model.choices import Choices
from qemu_model.model.pe import PE, Aborted, Access, Append, Outcome
from qemu_model.model.producer import Producer
from qemu_model.trace import FLAG_CAS_LOST, Anomaly, Kind, RawRecord
from tests.unit.arch.tables import Ram, map_leaf, vtcr

BUFFER, BUFFER_STEP = 0x8000_0000, 0x100_0000
BASE, POOL = 0x1_0000_0000, 0x1_0010_0000
VTCR_ON = vtcr("4k", 40, 1) | VTCR_HA.mask | VTCR_HD.mask | VTCR_HDBSS.mask
HVC_ESR = 0x16 << 26 | 1 << 25
DBM, WRITE, READ, AF, PAGE = 1 << 51, 1 << 7, 1 << 6, 1 << 10, 0b11
CLEAN = DBM | READ | AF | PAGE


class Recorder:
    """Some PEs on one memory and one stage 2 table, and the trace of what they do."""

    def __init__(self, pes: int = 1, choices: Choices | None = None) -> None:
        self.ram = Ram()
        self.records: list[RawRecord] = []
        self.inside = [False] * pes
        self._pool = POOL
        self.add(Kind.BEGIN, 0, 1)
        self.pes = []
        for index in range(pes):
            pe = PE(self.ram, choices, Producer())
            pe.vttbr = BASE
            self.pes.append(pe)
            self.add(Kind.RESET, index, 0, 0, 0)

    def add(self, kind: Kind, pe: int, *fields: int, flags: int = 0) -> None:
        """Append a record; missing fields are zero."""
        a, b, c, d, e, f = (*fields, 0, 0, 0, 0, 0, 0)[:6]
        self.records.append((len(self.records) + 1, int(kind), pe, flags, a, b, c, d, e, f))

    def map(self, ipa: int, leaf: int = CLEAN, level: int = 3) -> int:
        """Enter a leaf whose output is some page of high memory; return its PA."""
        self._pool += 0x10_000
        return map_leaf(self.ram, "4k", 1, BASE, ipa, level, leaf | 0x40_0000_0000, self._pool)

    def start(self, pe: int = 0, sz: int = 0, vtcr_value: int = VTCR_ON) -> None:
        """Give the PE a buffer of its own and enter the guest."""
        self.write(pe, SysReg.HDBSSBR_EL2, BUFFER + pe * BUFFER_STEP | sz)
        self.write(pe, SysReg.HDBSSPROD_EL2, 0)
        self.write(pe, SysReg.VTCR_EL2, vtcr_value)
        self.enter(pe)

    def write(self, pe: int, register: SysReg, value: int) -> None:
        """MSR at EL2."""
        held = self.pes[pe].write(register, value)
        self.add(Kind.WRITE, pe, register, value, held, 0xFFFF_8000)

    def read(self, pe: int, register: SysReg) -> int:
        """MRS at EL2."""
        value = self.pes[pe].read(register)
        self.add(Kind.READ, pe, register, value, 0, 0xFFFF_8000)
        return value

    def enter(self, pe: int = 0) -> None:
        """ERET into the guest."""
        hart, producer = self.pes[pe], self.pes[pe].producer
        hart.write(SysReg.HCR_EL2, 1 | 1 << 34)
        hart.context_synchronize()
        values = (producer.hdbssbr, producer.hdbssprod, producer.vtcr, hart.vttbr, hart.hcr)
        self.add(Kind.ENTRY, pe, *values, 0x1000)
        self.inside[pe] = True

    def exit(self, pe: int = 0, esr: int = HVC_ESR, vector: int = 0x400) -> None:
        """Exception from the guest to EL2."""
        prod = self.pes[pe].producer.hdbssprod
        self.add(Kind.EXIT, pe, esr, 0, 0, prod, vector, 0x1000)
        self.pes[pe].context_synchronize()
        self.inside[pe] = False

    def access(self, ipa: int, kind: Access = Access.WRITE, pe: int = 0) -> Outcome:
        """Stage 2 part of an access by the guest, with the exit that it may end in."""
        hart = self.pes[pe]
        fsc, slot = hart.producer.fsc, hart.producer.slot()
        outcome = hart.access(ipa, kind)
        for append in outcome.appended:
            self._append(pe, append)
            slot = append.slot_pa + 8
        if fsc != hart.producer.fsc:
            assert hart.producer.fsc == ProdFsc.EXTERNAL_ABORT
            if hart.producer.sz_reserved:
                self.add(Kind.ANOMALY, pe, Anomaly.RESERVED_SZ, hart.producer.hdbssbr)
            else:
                self.add(Kind.ANOMALY, pe, Anomaly.BUFFER_OUTSIDE_RAM, slot)
        if isinstance(outcome, Aborted):
            esr = outcome.abort.esr
            if outcome.refused:
                assert outcome.leaf is not None
                self.add(
                    Kind.REFUSE, pe, ipa & ~0xFFF, esr, hart.producer.hdbssprod,
                    outcome.leaf.descriptor_pa, outcome.leaf.descriptor, hart.producer.hdbssbr,
                )  # fmt: skip
            self.exit(pe, esr)
        return outcome

    def _append(self, pe: int, append: Append) -> None:
        self.add(
            Kind.APPEND, pe, append.ipa & ~0xFFF, append.entry, append.slot_pa,
            append.descriptor_pa, append.before, append.after,
            flags=append.index | (FLAG_CAS_LOST if append.cas_lost else 0),
        )  # fmt: skip

    def store(self, ipa: int, pe: int = 0) -> Outcome:
        """``access`` with a write."""
        return self.access(ipa, Access.WRITE, pe)

    def end(self) -> list[RawRecord]:
        """Add END and return the trace."""
        self.add(Kind.END, 0, 0, len(self.records) + 1)
        return self.records


def permission_fault(level: int = 3, hdbssf: bool = False) -> int:
    """Return ESR_EL2 of a store that took a stage 2 Permission fault."""
    return Abort(False, FaultKind.PERMISSION, level, wnr=True, hdbssf=hdbssf).esr
