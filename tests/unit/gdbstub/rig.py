# SPDX-License-Identifier: GPL-2.0-or-later
"""An interceptor on a made-up kernel with a fake stub, and where everything is in it."""

import struct
from pathlib import Path

from qemu_model.arch import syndrome
from qemu_model.arch.registers import (
    VTCR_HA,
    VTCR_HD,
    VTCR_HDBSS,
    SysReg,
)
from qemu_model.arch.syndrome import Abort
from qemu_model.arch.syndrome import Kind as FaultKind
from qemu_model.checkers.mirror import check_trace
from qemu_model.gdbstub.interceptor import Interceptor
from qemu_model.gdbstub.kernelcode import KernelCode
from qemu_model.gdbstub.mi import Stop
from qemu_model.gdbstub.ram import RamFile
from qemu_model.machine.kernelwatch import KernelWatch
from qemu_model.model.choices import BEST, Choices
from qemu_model.trace import Kind, RawRecord, read_trace
from qemu_model.vmlinux.sites import ERET, ESR_EL1, SMC_0, Role, Site, Sites
from tests.unit.arch.tables import Ram, map_leaf, vtcr
from tests.unit.gdbstub.fake_stub import Done, FakeStub

RAM_BASE, RAM_SIZE = 0x4000_0000, 0x400_0000
TEXT, LOAD = 0xFFFF_8000_8000_0000, 0x4020_0000
BUFFER, TABLES, POOL, OUTPUT = 0x4100_0000, 0x4200_0000, 0x4210_0000, 0x4300_0000
VTCR_OFF = vtcr("4k", 40, 1)
VTCR_ON = VTCR_OFF | VTCR_HA.mask | VTCR_HD.mask | VTCR_HDBSS.mask
VTCR_SEEN = VTCR_ON & ~VTCR_HD.mask
E2H, VM, TGE = 1 << 34, 1, 1 << 27
CLEAN = 1 << 51 | 1 << 10 | 1 << 6 | 0b11
IPA = 0x5000_0000
FAULT = Abort(False, FaultKind.PERMISSION, 3, wnr=True).esr
REFUSED = FAULT | syndrome.HDBSSF.mask
MRS, MSR = 0xD520_0000, 0xD500_0000
NOP, ERETAA, B = 0xD503_201F, 0xD69F_0BFF, 0x1400_0001
MARKER = 0x40_1000
CPU_OFF = 0x8400_0002

# Where everything is in the kernel's text: one instruction after the other.
(MRS_ID, MRS_PROD, MRS_ZR, MSR_BR, MSR_PROD, MSR_ZR, MSR_VTCR, ESR2, ESR1, ENTER, ENTER_A, SMC,
 RETRY, DSB, ISB, PATCHED, TLBI, NO_TLBI) = range(TEXT, TEXT + 18 * 4, 4)  # fmt: skip
VECTOR = TEXT + 0x800
SYNC, IRQ, ERET_A_VECTOR = VECTOR + 0x400, VECTOR + 0x480, VECTOR + 0x600
BR, PROD, VTCR_REG, ID = (
    int(register)
    for register in (
        SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2, SysReg.VTCR_EL2, SysReg.ID_AA64MMFR1_EL1
    )
)  # fmt: skip
SITES = (
    Site(MRS_ID, Role.MRS, ID, 3),
    Site(MRS_PROD, Role.MRS, PROD, 4),
    Site(MRS_ZR, Role.MRS, PROD, 31),
    Site(MSR_BR, Role.MSR, BR, 5),
    Site(MSR_PROD, Role.MSR, PROD, 6),
    Site(MSR_ZR, Role.MSR, PROD, 31),
    Site(MSR_VTCR, Role.MSR, VTCR_REG, 7),
    Site(ESR2, Role.MRS_ESR, int(SysReg.ESR_EL2), 8),
    Site(ESR1, Role.MRS_ESR, ESR_EL1, 9),
    Site(ENTER, Role.ERET),
    Site(ENTER_A, Role.ERET),
    Site(SMC, Role.SMC),
    Site(TLBI, Role.TLBI),
    Site(NO_TLBI, Role.TLBI),
    Site(SYNC, Role.VECTOR),
    Site(IRQ, Role.VECTOR),
    Site(ERET_A_VECTOR, Role.VECTOR),
)
BARRIERS = (Site(DSB, Role.DSB), Site(ISB, Role.ISB), Site(PATCHED, Role.DSB))
WORDS = {
    **{s.address: (MRS if s.role is Role.MRS else MSR) | s.register | s.rt for s in SITES},
    ENTER: ERET, RETRY: ERET, ENTER_A: ERETAA, SMC: SMC_0, SYNC: NOP, IRQ: B, ERET_A_VECTOR: NOP,
    TLBI: 0xD50C_83DF, NO_TLBI: NOP, DSB: 0xD503_3F9F, ISB: 0xD503_3FDF, PATCHED: NOP,
}  # fmt: skip
ALWAYS = {s.address for s in SITES if s.role in (Role.MRS, Role.MSR, Role.SMC)} | {MARKER}
GUEST = {s.address for s in SITES if s.role in (Role.VECTOR, Role.ERET)}
ESR = {ESR2, ESR1}


class Rig:
    """An interceptor on a made-up kernel, and the machine it is connected to."""

    def __init__(
        self,
        directory: Path,
        pes: int = 1,
        choices: Choices = BEST,
        watch: KernelWatch | None = None,
    ) -> None:
        path = directory / "ram"
        with path.open("wb") as file:
            file.truncate(RAM_SIZE)
            for address, word in WORDS.items():
                file.seek(address - TEXT + LOAD - RAM_BASE)
                file.write(struct.pack("<I", word))
        self.ram = RamFile(path, RAM_BASE)
        self.stub = FakeStub(
            pes, ESR_EL2=0, FAR_EL2=0x1234, HPFAR_EL2=IPA >> 8, VTTBR_EL2=TABLES,
            HCR_EL2=E2H | VM, ELR_EL2=0x1000_0000, VTCR_EL2=VTCR_OFF, ID_AA64MMFR1_EL1=0x21122,
            cpsr=0x3C9, **{f"x{n}": 0x1111 * n for n in range(31)},
        )  # fmt: skip
        barriers = {site.address: site for site in BARRIERS}
        sites = Sites({site.address: site for site in SITES}, RETRY, barriers)
        kernel = KernelCode(sites, TEXT, LOAD, WORDS.get)
        self.trace = directory / "trace.bin"
        self.choices = choices
        self.interceptor = Interceptor(
            self.stub, kernel, (MARKER,), self.ram, self.trace, pes, watch=watch, choices=choices
        )
        self._tables = Ram()
        self._pool = POOL

    def map(self, ipa: int, leaf: int = CLEAN) -> int:
        self._pool += 0x10_000
        at = map_leaf(self._tables, "4k", 1, TABLES, ipa, 3, leaf | OUTPUT, self._pool)
        for pa, word in self._tables.words.items():
            self.ram.write64(pa, word)
        return at

    def stop(self, pc: int, thread: int = 1, **registers: int) -> list[Done]:
        """The machine stops there; returns what is done about it, breakpoints left out."""
        self.stub.registers.update(pc=pc, **registers)
        self.stub.done.clear()
        self.stub.running = False
        self.interceptor.answer(Stop(thread, pc, "breakpoint-hit"))
        assert self.stub.running
        return [done for done in self.stub.done if done[0] != "enable"]

    def on(self, index: int = 0, value: int = VTCR_ON) -> None:
        """Load a buffer, switch HDBSS on and enter the guest."""
        self.stop(MSR_BR, x5=BUFFER)
        self.stop(MSR_PROD, x6=index)
        self.stop(MSR_VTCR, x7=value)
        self.stop(ENTER)

    def set(self) -> set[int]:
        """Where breakpoints are enabled."""
        return {address for address, on in self.stub.enabled.items() if on}

    def records(self, *kinds: Kind) -> list[RawRecord]:
        """Those that there are so far; all of them satisfy the checker."""
        self.interceptor.flush()
        records = list(read_trace(self.trace))
        assert [divergence.seen for divergence in check_trace(records, self.choices)] == []
        return [record for record in records if not kinds or record[1] in kinds]
