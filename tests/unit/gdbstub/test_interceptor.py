# SPDX-License-Identifier: GPL-2.0-or-later
"""What the interceptor does at each kind of stop: registers, jumps, breakpoints, records."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_model.arch import syndrome
from qemu_model.arch.registers import (
    MMFR1_HAFDBS,
    VTCR_HA,
    VTCR_HD,
    VTCR_HDBSS,
    SysReg,
)
from qemu_model.arch.syndrome import Abort
from qemu_model.arch.syndrome import Kind as FaultKind
from qemu_model.checkers.mirror import check_trace
from qemu_model.errors import InfrastructureError
from qemu_model.gdbstub import interceptor as interceptor_module
from qemu_model.gdbstub.interceptor import Interceptor, KernelCode
from qemu_model.gdbstub.mi import GdbLost, Stop
from qemu_model.gdbstub.ram import RamFile
from qemu_model.machine.kernelwatch import KernelWatch
from qemu_model.model.choices import BEST, Caching, Choices, Visibility
from qemu_model.trace import BARRIER_CONTEXT, BARRIER_DSB, Kind, RawRecord, read_trace
from qemu_model.vmlinux.sites import ERET, ESR_EL1, HINT_127, SMC_0, Role, Site, Sites
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
            **{f"x{n}": 0x1111 * n for n in range(31)},
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


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.interceptor.close()
    made.ram.close()


# --- the beginning ------------------------------------------------------------


def test_breakpoints_of_the_beginning(rig: Rig) -> None:
    assert rig.stub.enabled.keys() == ALWAYS | GUEST | ESR
    assert rig.set() == ALWAYS
    assert [r[1] for r in rig.records()] == [Kind.BEGIN, Kind.RESET]


def test_a_stub_that_shows_too_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeStub, "has", lambda self, name: not name.startswith("H"))
    with pytest.raises(InfrastructureError, match="does not show HPFAR_EL2, HCR_EL2"):
        Rig(tmp_path)


def test_a_stub_with_other_vcpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeStub, "threads", lambda self: 3)
    with pytest.raises(InfrastructureError, match="shows 3 vCPUs, not 2"):
        Rig(tmp_path, 2)


# --- registers ----------------------------------------------------------------


def test_the_feature_is_announced(rig: Rig) -> None:
    value = MMFR1_HAFDBS.put(0x21122, 4)
    assert rig.stop(MRS_ID) == [("set", "x3", value), ("go", MRS_ID + 4)]
    (record,) = rig.records(Kind.READ)
    assert record[4:8] == (ID, value, 0, MRS_ID)


def test_a_read(rig: Rig) -> None:
    rig.stop(MSR_PROD, x6=7)
    assert rig.stop(MRS_PROD) == [("set", "x4", 7), ("go", MRS_PROD + 4)]


def test_a_read_into_nowhere(rig: Rig) -> None:
    assert rig.stop(MRS_ZR) == [("go", MRS_ZR + 4)]
    assert len(rig.records(Kind.READ)) == 1


def test_a_write(rig: Rig) -> None:
    assert rig.stop(MSR_BR, x5=BUFFER | 1 << 60 | 3) == [("go", MSR_BR + 4)]
    producer = rig.interceptor.pes[0].model.producer
    assert producer.hdbssbr == BUFFER | 3
    (record,) = rig.records(Kind.WRITE)
    assert record[4:8] == (BR, BUFFER | 1 << 60 | 3, BUFFER | 3, MSR_BR)


def test_a_write_of_zero(rig: Rig) -> None:
    rig.stop(MSR_PROD, x6=7)
    assert rig.stop(MSR_ZR) == [("go", MSR_ZR + 4)]
    assert rig.interceptor.pes[0].model.producer.hdbssprod == 0


def test_vtcr_without_hdbss_is_qemus_own_business(rig: Rig) -> None:
    assert rig.stop(MSR_VTCR, x7=VTCR_OFF) == [("go", MSR_VTCR)]
    assert rig.stub.stepped == [] and rig.set() == ALWAYS


def test_vtcr_with_hdbss_is_masked_and_nobody_notices(rig: Rig) -> None:
    assert rig.stop(MSR_VTCR, x7=VTCR_ON) == [
        ("set", "x7", VTCR_SEEN),
        ("step", MSR_VTCR + 4),
        ("set", "x7", VTCR_ON),
        ("go", MSR_VTCR + 4),
    ]
    (executed,) = rig.stub.stepped
    assert executed["x7"] == VTCR_SEEN
    assert rig.interceptor.pes[0].enabled


# --- breakpoints that come and go ---------------------------------------------


def test_guest_sites_are_set_while_hdbss_is_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptor_module, "_IDLE_ENTRIES", 2)
    rig.on()
    assert rig.set() == ALWAYS | GUEST
    rig.stop(IRQ)
    rig.stop(MSR_VTCR, x7=VTCR_OFF)
    for _ in range(2):
        rig.stop(ENTER)
        assert rig.set() == ALWAYS | GUEST
        rig.stop(IRQ)
    rig.stop(ENTER)
    assert rig.set() == ALWAYS
    rig.stop(MSR_VTCR, x7=VTCR_ON)
    assert rig.set() == ALWAYS | GUEST


def test_they_stay_while_another_pe_has_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interceptor_module, "_IDLE_ENTRIES", 0)
    rig = Rig(tmp_path, 2)
    rig.stop(MSR_VTCR, thread=2, x7=VTCR_ON)
    for _ in range(3):
        rig.stop(ENTER, thread=1)
        rig.stop(IRQ, thread=1)
    assert rig.set() == ALWAYS | GUEST


# --- the guest ----------------------------------------------------------------


def test_an_entry_goes_on_at_the_eret_without_a_breakpoint(rig: Rig) -> None:
    rig.stop(MSR_VTCR, x7=VTCR_ON)
    assert rig.stop(ENTER) == [("go", RETRY)]
    (record,) = rig.records(Kind.ENTRY)
    assert record[4:] == (0, 0, VTCR_ON, TABLES, E2H | VM, 0x1000_0000)


def test_an_eret_that_authenticates_is_executed_where_it_is(rig: Rig) -> None:
    rig.stop(MSR_VTCR, x7=VTCR_ON)
    assert rig.stop(ENTER_A) == [("go", ENTER_A)]


def test_an_eret_to_the_host_is_no_entry(rig: Rig) -> None:
    rig.stop(MSR_VTCR, x7=VTCR_ON)
    rig.stop(ENTER, HCR_EL2=E2H | VM | TGE)
    assert rig.records(Kind.ENTRY) == []


def test_a_fault_becomes_an_append_and_the_access_is_made_again(rig: Rig) -> None:
    descriptor = rig.map(IPA)
    rig.on()
    assert rig.stop(SYNC, ESR_EL2=FAULT) == [("go", RETRY)]
    assert rig.ram.read64(BUFFER) == IPA | 7
    assert rig.ram.read64(descriptor) == CLEAN | OUTPUT | 1 << 7
    assert rig.interceptor.pes[0].in_guest
    assert len(rig.records(Kind.APPEND)) == 1 and rig.records(Kind.EXIT) == []


@pytest.mark.parametrize(("vector", "goes"), [(SYNC, SYNC + 4), (IRQ, IRQ)])
def test_an_exit_is_the_kernels(rig: Rig, vector: int, goes: int) -> None:
    rig.on()
    hvc = 0x16 << 26
    # A hint at the vector is skipped: one single step less.
    assert rig.stop(vector, ESR_EL2=hvc) == [("go", goes)]
    (record,) = rig.records(Kind.EXIT)
    assert record[4:] == (hvc, 0x1234, IPA >> 8, 0, vector & 0x7FF, 0x1000_0000)
    assert not rig.interceptor.pes[0].in_guest


def test_an_interrupt_with_an_old_syndrome_appends_nothing(rig: Rig) -> None:
    rig.map(IPA)
    rig.on()
    rig.stop(IRQ, ESR_EL2=FAULT)
    assert rig.records(Kind.APPEND) == [] and len(rig.records(Kind.EXIT)) == 1


def test_a_vector_that_no_guest_has_come_from(rig: Rig) -> None:
    rig.map(IPA)
    rig.stop(MSR_VTCR, x7=VTCR_ON)
    assert rig.stop(SYNC, ESR_EL2=FAULT) == [("go", SYNC + 4)]
    assert rig.records(Kind.EXIT, Kind.APPEND) == []


def test_a_vector_outside_ram_is_entered_as_it_is(rig: Rig) -> None:
    rig.ram.size = LOAD - RAM_BASE
    rig.interceptor._compared = True
    assert rig.stop(SYNC) == [("go", SYNC)]


def test_a_fault_that_dbm_does_not_allow_is_the_kernels(rig: Rig) -> None:
    rig.map(IPA, CLEAN & ~(1 << 51))
    rig.on()
    assert rig.stop(SYNC, ESR_EL2=FAULT) == [("go", SYNC + 4)]
    (record,) = rig.records(Kind.EXIT)
    assert record[4] == FAULT and rig.set() == ALWAYS | GUEST


# --- a refusal ----------------------------------------------------------------


def refused(rig: Rig) -> Rig:
    rig.map(IPA)
    rig.on(512)
    assert rig.stop(SYNC, ESR_EL2=FAULT) == [("go", SYNC + 4)]
    return rig


def test_a_refusal_is_told_in_esr(rig: Rig) -> None:
    refused(rig)
    assert rig.set() == ALWAYS | GUEST | ESR
    assert [r[1] for r in rig.records()[-2:]] == [Kind.REFUSE, Kind.EXIT]
    assert rig.records(Kind.EXIT)[0][4] == REFUSED
    for _ in range(2):  # it may be read more than once
        assert rig.stop(ESR2) == [("set", "x8", REFUSED), ("go", ESR2 + 4)]
        assert rig.stop(ESR1) == [("set", "x9", REFUSED), ("go", ESR1 + 4)]


def test_esr_el1_is_another_register_without_e2h(rig: Rig) -> None:
    refused(rig)
    assert rig.stop(ESR1, HCR_EL2=VM) == [("go", ESR1)]
    assert rig.stop(ESR2, HCR_EL2=VM) == [("set", "x8", REFUSED), ("go", ESR2 + 4)]


def test_a_later_exception_has_its_own_esr(rig: Rig) -> None:
    refused(rig)
    assert rig.stop(ESR2, ESR_EL2=0x9600_0004) == [("go", ESR2)]


def test_the_next_entry_ends_the_refusal(rig: Rig) -> None:
    refused(rig)
    rig.stop(ENTER)
    assert rig.set() == ALWAYS | GUEST
    assert rig.stop(ESR2) == [("go", ESR2)]


def test_a_refusal_of_one_pe_is_none_of_another(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 2)
    refused(rig)
    rig.stop(MSR_VTCR, thread=2, x7=VTCR_ON)
    rig.stop(ENTER, thread=2)
    assert rig.set() == ALWAYS | GUEST | ESR
    assert rig.stop(ESR2, thread=2) == [("go", ESR2)]
    assert rig.stop(ESR2, thread=1) == [("set", "x8", REFUSED), ("go", ESR2 + 4)]


# --- the rest -----------------------------------------------------------------


def test_a_marker(rig: Rig) -> None:
    assert rig.stop(MARKER, x0=0x2B) == [("go", MARKER + 4)]
    (record,) = rig.records(Kind.MARK)
    assert record[4] == 0x2B


def test_the_same_instruction_in_a_guest_marks_nothing(rig: Rig) -> None:
    rig.on()
    assert rig.stop(MARKER, x0=0x2B) == [("go", MARKER + 4)]
    assert rig.records(Kind.MARK) == []
    assert HINT_127 not in WORDS.values()


@pytest.mark.parametrize("function", [CPU_OFF, CPU_OFF | 0xFFFF_FFFF << 32])
def test_a_cpu_that_is_switched_off_comes_back_reset(rig: Rig, function: int) -> None:
    refused(rig)
    assert rig.stop(SMC, x0=function) == [("go", SMC)]
    assert not rig.interceptor.pes[0].enabled
    assert rig.records()[-1][1] == Kind.RESET


def test_other_calls_of_the_firmware_change_nothing(rig: Rig) -> None:
    assert rig.stop(SMC, x0=0x8400_0000) == [("go", SMC)]
    assert len(rig.records(Kind.RESET)) == 1


@pytest.mark.parametrize(
    ("thread", "pc"), [(1, TEXT + 0x4000), (1, RETRY), (2, MRS_PROD), (0, MRS_PROD), (1, 0)]
)
def test_a_stop_that_nobody_asked_for(rig: Rig, thread: int, pc: int) -> None:
    with pytest.raises(InfrastructureError, match=f"stopped vCPU {thread - 1} at {pc:#x}, where"):
        rig.interceptor.answer(Stop(thread, pc, ""))
    assert not rig.stub.running


@pytest.mark.parametrize("found", ["another word", "no memory"])
def test_a_kernel_that_is_not_the_one_of_vmlinux(rig: Rig, found: str) -> None:
    if found == "another word":
        address = MSR_VTCR - TEXT + LOAD
        rig.ram.write64(address & ~7, 0)
    else:
        rig.ram.size = LOAD - RAM_BASE
    with pytest.raises(InfrastructureError, match="vmlinux does not match the running kernel: at"):
        rig.stop(MRS_ID)


def test_the_kernel_is_compared_once(rig: Rig) -> None:
    rig.stop(MRS_ID)
    rig.ram.write64((MSR_VTCR - TEXT + LOAD) & ~7, 0)  # what boot-time patching may do
    rig.stop(MRS_ID)


def test_serving(rig: Rig) -> None:
    rig.stub.registers["pc"] = MRS_ID
    rig.stub.stops = [Stop(1, MRS_ID, "breakpoint-hit")] * 3
    rig.interceptor.start()
    rig.interceptor.serve(5.0)
    assert rig.interceptor.stops == 3 and len(rig.records(Kind.READ)) == 3


def test_serving_a_machine_that_has_gone(rig: Rig) -> None:
    rig.stub.gone = True
    with pytest.raises(GdbLost, match="QEMU has closed the connection"):
        rig.interceptor.serve(5.0)


# --- entries that wait for barriers ---------------------------------------------


@pytest.fixture
def late(tmp_path: Path) -> Iterator[Rig]:
    """A PE in the guest, one entry appended, that holds entries back."""
    made = Rig(tmp_path, choices=Choices(visibility=Visibility.DSB))
    made.map(IPA)
    made.on()
    made.stop(SYNC, ESR_EL2=FAULT)
    yield made
    made.interceptor.close()
    made.ram.close()


def test_stops_at_barriers_only_while_they_matter(late: Rig) -> None:
    dsb, isb = {DSB, PATCHED}, {ISB}
    assert not late.set() & (dsb | isb)
    late.stop(IRQ)
    assert late.set() & (dsb | isb) == dsb
    assert late.stop(MRS_PROD) == [("set", "x4", 0), ("go", MRS_PROD + 4)]
    assert late.ram.read64(BUFFER) == 0
    assert late.stop(PATCHED) == [("go", PATCHED)]
    assert late.set() & (dsb | isb) == dsb
    assert late.stop(DSB) == [("go", DSB + 4)]
    assert late.ram.read64(BUFFER) == IPA | 7
    assert late.set() & (dsb | isb) == isb
    assert late.stop(MRS_PROD) == [("set", "x4", 0), ("go", MRS_PROD + 4)]
    late.stop(ISB)
    assert not late.set() & (dsb | isb)
    assert late.stop(MRS_PROD) == [("set", "x4", 1), ("go", MRS_PROD + 4)]
    assert [record[4:8] for record in late.records(Kind.BARRIER)] == [
        (BARRIER_DSB, 1, 0, DSB),
        (BARRIER_CONTEXT, 0, 1, ISB),
    ]


def test_a_guest_entry_needs_no_barrier(late: Rig) -> None:
    late.stop(IRQ)
    late.stop(ENTER)
    assert not late.set() & {DSB, ISB, PATCHED}
    assert late.ram.read64(BUFFER) == IPA | 7
    assert late.records(Kind.BARRIER) == []


def test_other_pes_do_not_stop_at_barriers(rig: Rig) -> None:
    assert not rig.stub.enabled.keys() & {DSB, ISB, PATCHED}


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[Rig]:
    """Two PEs that cache VTCR_EL2; the first one has run a guest without HDBSS."""
    made = Rig(tmp_path, pes=2, choices=Choices(caching=Caching.LAZY))
    made.interceptor.watch_guest()
    made.map(IPA)
    made.stop(ENTER)
    made.stop(IRQ)
    yield made
    made.interceptor.close()
    made.ram.close()


def test_an_old_translation_appends_nothing(lazy: Rig) -> None:
    lazy.on()
    lazy.stop(SYNC, ESR_EL2=FAULT)
    assert lazy.records(Kind.APPEND) == []
    (_, last) = lazy.records(Kind.EXIT)
    assert last[4] == FAULT  # it is the kernel's


@pytest.mark.parametrize("thread", [1, 2])
def test_after_a_tlbi_it_does(lazy: Rig, thread: int) -> None:
    assert lazy.stop(TLBI, thread) == [("go", TLBI)]
    (record,) = lazy.records(Kind.TLBI)
    assert record[2:8] == (thread - 1, 0, 0, TABLES >> 48, 1, TLBI)
    lazy.on()
    lazy.stop(SYNC, ESR_EL2=FAULT)
    assert len(lazy.records(Kind.APPEND)) == 1


def test_a_tlbi_reaches_a_pe_that_is_in_the_guest(lazy: Rig) -> None:
    lazy.on()
    lazy.stop(TLBI, 2)
    lazy.stop(SYNC, ESR_EL2=FAULT)
    assert len(lazy.records(Kind.APPEND)) == 1


def test_where_the_kernel_has_no_tlbi_nothing_is_forgotten(lazy: Rig) -> None:
    assert lazy.stop(NO_TLBI) == [("go", NO_TLBI)]
    assert lazy.records(Kind.TLBI) == []


def test_nobody_stops_at_a_tlbi_without_need(rig: Rig) -> None:
    assert not rig.stub.enabled.keys() & {TLBI, NO_TLBI}
