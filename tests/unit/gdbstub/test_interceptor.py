# SPDX-License-Identifier: GPL-2.0-or-later
"""What the interceptor does at each kind of stop: registers, jumps, breakpoints, records."""

from pathlib import Path

import pytest

from qemu_model.arch.registers import (
    MMFR1_HAFDBS,
)
from qemu_model.errors import InfrastructureError
from qemu_model.gdbstub import interceptor as interceptor_module
from qemu_model.gdbstub.mi import GdbLost, Stop
from qemu_model.trace import Kind
from qemu_model.vmlinux.sites import HINT_127
from tests.unit.gdbstub.fake_stub import FakeStub
from tests.unit.gdbstub.rig import (
    ALWAYS,
    BR,
    BUFFER,
    CLEAN,
    CPU_OFF,
    E2H,
    ENTER,
    ENTER_A,
    ESR,
    ESR1,
    ESR2,
    FAULT,
    GUEST,
    ID,
    IPA,
    IRQ,
    LOAD,
    MARKER,
    MRS_ID,
    MRS_PROD,
    MRS_ZR,
    MSR_BR,
    MSR_PROD,
    MSR_VTCR,
    MSR_ZR,
    OUTPUT,
    RAM_BASE,
    REFUSED,
    RETRY,
    SMC,
    SYNC,
    TABLES,
    TEXT,
    TGE,
    VM,
    VTCR_OFF,
    VTCR_ON,
    VTCR_SEEN,
    WORDS,
    Rig,
)

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


@pytest.mark.parametrize("function", [CPU_OFF, 0x95C1_BA5F])
def test_a_cpu_that_is_switched_off_comes_back_reset(rig: Rig, function: int) -> None:
    refused(rig)
    assert rig.stop(SMC, x0=function) == [("go", SMC)]
    assert not rig.interceptor.pes[0].enabled
    assert rig.records()[-1][1] == Kind.RESET


@pytest.mark.parametrize("function", [0x8400_0000, 0xC400_0002, CPU_OFF | 1 << 32, 0xD5C1_BA5F])
def test_other_calls_of_the_firmware_change_nothing(rig: Rig, function: int) -> None:
    assert rig.stop(SMC, x0=function) == [("go", SMC)]
    assert len(rig.records(Kind.RESET)) == 1


@pytest.mark.parametrize(
    ("cpsr", "hcr", "resets"),
    [(0x3C0, E2H | VM, 1), (0x3C5, E2H | VM | 1 << 19, 1), (0x3C5, E2H | VM, 2)],
)
def test_an_smc_that_calls_nobody_changes_nothing(
    rig: Rig, cpsr: int, hcr: int, resets: int
) -> None:
    """UNDEFINED at EL0, trapped at EL1 with HCR_EL2.TSC."""
    assert rig.stop(SMC, x0=CPU_OFF, cpsr=cpsr, HCR_EL2=hcr) == [("go", SMC)]
    assert len(rig.records(Kind.RESET)) == resets


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
