# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated PEs: what a guest's abort becomes, and a trace that the checker accepts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_model.arch import syndrome
from qemu_model.arch.registers import (
    VTCR_HA,
    VTCR_HD,
    VTCR_HDBSS,
    ProdFsc,
    SysReg,
)
from qemu_model.arch.syndrome import Abort, Kind
from qemu_model.checkers.mirror import check_trace
from qemu_model.gdbstub import pes as pes_module
from qemu_model.gdbstub.pes import EmulatedPe, GuestAbort, Verdict
from qemu_model.gdbstub.ram import RamFile
from qemu_model.model.choices import BEST, Caching, Choices
from qemu_model.trace import Anomaly, Header, RawRecord, TraceWriter, read_trace
from qemu_model.trace import Kind as Record
from tests.unit.arch.tables import Ram, map_leaf, vtcr

HEADER = Header(0x4000_0000, 0x1000_0000, 1, "gdbstub")
BUFFER, TABLES, POOL, OUTPUT = 0x4100_0000, 0x4200_0000, 0x4210_0000, 0x4300_0000
OUTSIDE = 0x8000_0000
VTCR_OFF = vtcr("4k", 40, 1)
VTCR_DIRTY = VTCR_OFF | VTCR_HA.mask | VTCR_HD.mask
VTCR_ON = VTCR_DIRTY | VTCR_HDBSS.mask
HCR = 1 | 1 << 34
"""VM and E2H."""
DBM, WRITE, READ, AF, PAGE, BLOCK = 1 << 51, 1 << 7, 1 << 6, 1 << 10, 0b11, 0b01
CLEAN = DBM | READ | AF | PAGE
IPA = 0x5000_0000
CM = syndrome.CM.mask
FAR, ELR = 0x1234, 0x1_0000_0000
VECTOR = 0x400
HVC = 0x16 << 26
REFUSED = Verdict.REFUSED


def data_abort(level: int = 3, kind: Kind = Kind.PERMISSION, **fields: bool) -> int:
    """ESR_EL2 of a store that stage 2 has stopped."""
    return Abort(False, kind, level, **{"wnr": True, **fields}).esr


class Rig:
    """One emulated PE, its memory and its trace."""

    def __init__(
        self, directory: Path, ram: Ram | RamFile | None = None, choices: Choices = BEST
    ) -> None:
        self.ram = Ram(holes=[range(0, 0x4000_0000), range(0x5000_0000, 1 << 56)])
        self._path = directory / "trace.bin"
        self._trace = TraceWriter(self._path, HEADER)
        self._trace.write(Record.BEGIN, 0, (1,))
        self._choices = choices
        self.pe = EmulatedPe(0, ram or self.ram, self._trace, choices)
        self.pe.reset(VTCR_OFF)
        self._pool = POOL

    def map(self, ipa: int, leaf: int = CLEAN, level: int = 3) -> int:
        """Enter a leaf; returns the descriptor's PA."""
        self._pool += 0x10_000
        return map_leaf(self.ram, "4k", 1, TABLES, ipa, level, leaf | OUTPUT, self._pool)

    def registers(self, buffer: int = BUFFER, prod: int = 0, vtcr_value: int = VTCR_ON) -> None:
        """Load the buffer and switch HDBSS on, as KVM does before an entry."""
        for register, value in (
            (SysReg.HDBSSBR_EL2, buffer),
            (SysReg.HDBSSPROD_EL2, prod),
            (SysReg.VTCR_EL2, vtcr_value),
        ):
            self.pe.write(register, value, 0xFFFF)

    def enter(self, hcr: int = HCR) -> None:
        self.pe.enter(TABLES, hcr, ELR)

    def fault(
        self, ipa: int = IPA, esr: int | None = None, far: int = FAR, elr: int = ELR
    ) -> Verdict:
        """An abort, handled as the interceptor handles it at the vector."""
        abort = GuestAbort(data_abort() if esr is None else esr, ipa >> 8, far, elr)
        verdict = Verdict.KERNEL
        if self.pe.hides_hd and abort.may_dirty:
            verdict = self.pe.abort(abort)
        if verdict is not Verdict.RETRY:
            delivered = abort.esr if self.pe.refused is None else self.pe.refused[1]
            self.pe.leave(delivered, far, abort.hpfar, VECTOR, elr)
        return verdict

    def records(self) -> list[RawRecord]:
        """End the trace and read it back; the checker has nothing against it."""
        self._trace.close()
        records = list(read_trace(self._path))
        assert [divergence.seen for divergence in check_trace(records, self._choices)] == []
        return records

    def of(self, kind: Record) -> list[RawRecord]:
        return [record for record in self.records() if record[1] == kind]

    def anomalies(self) -> list[tuple[int, int]]:
        return [(record[4], record[5]) for record in self.of(Record.ANOMALY)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    yield Rig(tmp_path)


def running(rig: Rig, **registers: int) -> Rig:
    rig.registers(**registers)
    rig.enter()
    return rig


# --- what an abort becomes ----------------------------------------------------


def test_an_append(rig: Rig) -> None:
    descriptor = rig.map(IPA)
    running(rig, prod=3)
    assert rig.fault() is Verdict.RETRY
    assert rig.ram.words[descriptor] == CLEAN | OUTPUT | WRITE
    entry = IPA | 3 << 1 | 1
    assert rig.ram.words[BUFFER + 24] == entry
    assert rig.pe.model.producer.hdbssprod == 4 and rig.pe.entries == 1 and rig.pe.pending
    assert rig.pe.in_guest
    (record,) = rig.of(Record.APPEND)
    before = CLEAN | OUTPUT
    assert record[3:] == (3, IPA, entry, BUFFER + 24, descriptor, before, before | WRITE)


def test_the_retry_of_a_page_that_is_dirty_by_now(rig: Rig) -> None:
    rig.map(IPA, CLEAN | WRITE)
    running(rig)
    assert rig.fault() is Verdict.RETRY
    assert rig.of(Record.APPEND) == []


def test_a_block(rig: Rig) -> None:
    rig.map(IPA & -0x20_0000, CLEAN & ~PAGE | BLOCK, 2)
    running(rig)
    assert rig.fault(IPA + 0x5000, data_abort(2)) is Verdict.RETRY
    (record,) = rig.of(Record.APPEND)
    assert record[4:6] == (IPA + 0x5000, IPA | 2 << 1 | 1)


def test_a_full_buffer_refuses(rig: Rig) -> None:
    descriptor = rig.map(IPA)
    running(rig, prod=512)
    # QEMU's own level is that of its TLB; what counts is the leaf's.
    assert rig.fault(esr=data_abort(1)) is Verdict.REFUSED
    assert rig.pe.refused == (data_abort(1), data_abort(3, hdbssf=True))
    assert rig.ram.words[descriptor] == CLEAN | OUTPUT
    assert not rig.pe.in_guest
    records = rig.records()
    refuse, leave = records[-3], records[-2]
    delivered = data_abort(3, hdbssf=True)
    assert refuse[1] == Record.REFUSE
    assert refuse[4:] == (IPA, delivered, 512, descriptor, CLEAN | OUTPUT, BUFFER)
    assert (leave[1], leave[4]) == (Record.EXIT, delivered)


def test_the_next_entry_forgets_the_refusal(rig: Rig) -> None:
    rig.map(IPA)
    running(rig, prod=512)
    rig.fault()
    rig.enter()
    assert rig.pe.refused is None


def test_a_stage_1_walk(rig: Rig) -> None:
    descriptor = rig.map(IPA)
    running(rig)
    assert rig.fault(esr=data_abort(wnr=False, s1ptw=True)) is Verdict.RETRY
    assert rig.ram.words[descriptor] & WRITE
    assert len(rig.of(Record.APPEND)) == 1


def test_a_stage_1_walk_of_an_instruction_is_refused_as_one(rig: Rig) -> None:
    rig.map(IPA)
    running(rig, prod=512)
    esr = Abort(True, Kind.PERMISSION, 3, s1ptw=True).esr
    assert rig.fault(esr=esr) is Verdict.REFUSED
    assert rig.pe.refused == (esr, esr | syndrome.HDBSSF.mask)
    rig.records()


def test_a_page_that_is_not_to_be_dirtied(rig: Rig) -> None:
    rig.map(IPA, CLEAN & ~DBM)
    running(rig)
    assert rig.fault() is Verdict.KERNEL
    assert rig.pe.refused is None and rig.of(Record.REFUSE) == []


@pytest.mark.parametrize(
    "esr",
    [
        data_abort(kind=Kind.TRANSLATION),
        data_abort(wnr=False),
        data_abort() | CM,
        Abort(True, Kind.PERMISSION, 3).esr,
        HVC,
        0,
        (1 << 64) - 1 & ~syndrome.HDBSSF.mask,
    ],
)
def test_what_no_hdbss_can_change(rig: Rig, esr: int) -> None:
    rig.map(IPA)
    running(rig)
    assert not GuestAbort(esr, 0, 0, 0).may_dirty
    assert rig.fault(esr=esr) is Verdict.KERNEL
    assert rig.of(Record.APPEND) == []


def test_unmapped_since_qemu_walked(rig: Rig) -> None:
    running(rig)
    assert rig.fault() is Verdict.RETRY
    assert rig.anomalies() == []


@pytest.mark.parametrize("value", [VTCR_ON | 0b11 << 14, VTCR_ON & ~0x3F, VTCR_ON | 0xFF])
def test_a_walk_that_vtcr_does_not_describe(rig: Rig, value: int) -> None:
    rig.map(IPA)
    running(rig, vtcr_value=value)
    assert rig.fault() is Verdict.RETRY
    rig.records()


def test_a_table_outside_ram(rig: Rig) -> None:
    rig.map(IPA)
    (first,) = (pa for pa in rig.ram.words if pa >> 12 == TABLES >> 12)
    rig.ram.words[first] = OUTSIDE | 3
    running(rig)
    assert rig.fault() is Verdict.KERNEL
    assert rig.anomalies() == [(Anomaly.TABLE_OUTSIDE_RAM, OUTSIDE + (IPA >> 21 & 511) * 8)]


def test_a_buffer_outside_ram(rig: Rig) -> None:
    descriptor = rig.map(IPA)
    running(rig, buffer=OUTSIDE, prod=1)
    assert rig.fault() is Verdict.REFUSED
    assert rig.pe.model.producer.fsc == ProdFsc.EXTERNAL_ABORT
    assert rig.ram.words[descriptor] == CLEAN | OUTPUT
    assert rig.anomalies() == [(Anomaly.BUFFER_OUTSIDE_RAM, OUTSIDE + 8)]


def test_a_reserved_size(rig: Rig) -> None:
    rig.map(IPA)
    running(rig, buffer=BUFFER | 12)
    assert rig.fault() is Verdict.REFUSED
    assert rig.anomalies() == [(Anomaly.RESERVED_SZ, BUFFER | 12)]


def test_a_descriptor_that_never_stands_still(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.map(IPA, CLEAN & ~AF | WRITE)
    running(rig)

    def other(pa: int, expected: int, new: int) -> int:
        return expected ^ 1 << 55

    monkeypatch.setattr(rig.ram, "compare_and_swap64", other)
    assert rig.fault() is Verdict.KERNEL
    assert rig.anomalies() == [(Anomaly.RETRY_LIMIT, IPA)]


def test_retries_without_any_append_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pes_module, "_FRUITLESS", 3)
    rig.map(IPA, CLEAN | WRITE)
    rig.map(IPA + 0x1000)
    running(rig)
    assert [rig.fault() for _ in range(3)] == [Verdict.RETRY] * 3
    assert rig.fault(IPA + 0x1000) is Verdict.RETRY  # an append: counted anew
    assert [rig.fault() for _ in range(4)] == [Verdict.RETRY] * 3 + [Verdict.KERNEL]
    rig.enter()
    assert rig.fault() is Verdict.RETRY
    assert rig.anomalies() == [(Anomaly.WALK_DISAGREES, IPA)]


def test_lost_races_of_many_accesses_are_no_disagreement(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pes_module, "_FRUITLESS", 3)
    rig.map(IPA, CLEAN | WRITE)
    running(rig)
    for n in range(20):
        assert rig.fault(far=FAR + n) is Verdict.RETRY
    for n in range(20):
        assert rig.fault(elr=ELR + n) is Verdict.RETRY
    for _ in range(20):
        rig.pe.leave(HVC, FAR, 0, VECTOR, ELR)
        rig.enter()
        assert rig.fault() is Verdict.RETRY
    assert rig.anomalies() == []


def test_nor_are_those_with_refusals_in_between(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pes_module, "_FRUITLESS", 3)
    rig.map(IPA, CLEAN | WRITE)
    rig.map(IPA + 0x1000)
    running(rig, prod=512)
    for _ in range(20):
        assert rig.fault() is Verdict.RETRY
        assert rig.pe.abort(GuestAbort(data_abort(), IPA + 0x1000 >> 8, FAR, ELR)) is REFUSED
    assert rig.pe._fruitless == 0


# --- registers and places -----------------------------------------------------


def test_qemu_sees_no_hardware_dirty_state(rig: Rig) -> None:
    assert rig.pe.write(SysReg.VTCR_EL2, VTCR_ON, 0) == VTCR_ON & ~VTCR_HD.mask
    assert rig.pe.write(SysReg.VTCR_EL2, VTCR_OFF, 0) == VTCR_OFF
    without_hdbss = VTCR_OFF | VTCR_HA.mask | VTCR_HD.mask
    assert rig.pe.write(SysReg.VTCR_EL2, without_hdbss, 0) == without_hdbss
    held = [record[6] for record in rig.of(Record.WRITE)]
    assert held == [VTCR_ON, VTCR_OFF, without_hdbss]


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[Rig]:
    yield Rig(tmp_path, choices=Choices(caching=Caching.LAZY))


def test_nor_does_it_while_hdbss_may_still_be_cached(lazy: Rig) -> None:
    assert lazy.pe.write(SysReg.VTCR_EL2, VTCR_ON, 0) == VTCR_ON & ~VTCR_HD.mask
    assert lazy.pe.write(SysReg.VTCR_EL2, VTCR_DIRTY, 0) == VTCR_DIRTY & ~VTCR_HD.mask
    assert lazy.pe.hides_hd
    only_hd = VTCR_OFF | VTCR_HD.mask
    assert lazy.pe.write(SysReg.VTCR_EL2, only_hd, 0) == only_hd
    assert not lazy.pe.hides_hd


@pytest.mark.parametrize(
    ("cached", "now", "expected"),
    [
        (VTCR_ON, VTCR_DIRTY, (Verdict.RETRY, 1, True)),
        (VTCR_DIRTY, VTCR_DIRTY, (Verdict.RETRY, 0, True)),
        (VTCR_DIRTY, VTCR_OFF, (Verdict.RETRY, 0, True)),
        (VTCR_OFF, VTCR_DIRTY, (Verdict.KERNEL, 0, False)),
    ],
)
def test_what_is_cached_with_hd_on(
    lazy: Rig, cached: int, now: int, expected: tuple[Verdict, int, bool]
) -> None:
    descriptor = lazy.map(IPA)
    running(lazy, vtcr_value=cached)
    lazy.pe.leave(HVC, FAR, 0, VECTOR, ELR)
    lazy.pe.write(SysReg.VTCR_EL2, now, 0)
    lazy.enter()
    verdict = lazy.fault()
    dirty = bool(lazy.ram.words[descriptor] & WRITE)
    assert (verdict, lazy.pe.model.producer.index, dirty) == expected
    lazy.records()


def test_an_entry_without_stage_2_is_none(rig: Rig) -> None:
    rig.registers()
    rig.enter(HCR | 1 << 27)  # TGE
    rig.enter(1 << 34)
    assert not rig.pe.in_guest and rig.of(Record.ENTRY) == []


def test_reset(rig: Rig) -> None:
    rig.map(IPA)
    running(rig, prod=512)
    rig.fault()
    rig.pe.reset(VTCR_OFF)
    assert (rig.pe.in_guest, rig.pe.refused, rig.pe.enabled) == (False, None, False)
    producer = rig.pe.model.producer
    assert (producer.hdbssbr, producer.hdbssprod, producer.vtcr) == (0, 0, VTCR_OFF)
    assert len(rig.of(Record.RESET)) == 2


def test_on_a_ram_file(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    with path.open("wb") as file:
        file.truncate(HEADER.ram_size)
    with RamFile(path, HEADER.ram_base) as memory:
        rig = Rig(tmp_path, memory)
        descriptor = rig.map(IPA)
        for pa, word in rig.ram.words.items():
            memory.write64(pa, word)
        running(rig)
        assert rig.fault() is Verdict.RETRY
        assert memory.read64(BUFFER) == IPA | 7
        assert memory.read64(descriptor) == CLEAN | OUTPUT | WRITE
        assert len(rig.of(Record.APPEND)) == 1


# --- any software -------------------------------------------------------------

PAGES = {IPA + 0x1000 * n: leaf for n, leaf in enumerate(
    (CLEAN, CLEAN, CLEAN & ~AF, CLEAN | WRITE, CLEAN & ~DBM, CLEAN & ~READ, 0)
)}  # fmt: skip
WORDS = st.integers(0, (1 << 64) - 1)
BUFFERS = st.builds(
    lambda base, size: base | size,
    st.sampled_from((BUFFER, BUFFER + 0x1000, OUTSIDE, 0x5000_0000 - 0x1000, 0)),
    st.integers(0, 15),
)
VTCRS = st.one_of(st.sampled_from((VTCR_ON, VTCR_ON, VTCR_ON, VTCR_OFF)), WORDS)
WRITES = st.one_of(
    st.tuples(st.just(SysReg.HDBSSBR_EL2), st.one_of(BUFFERS, BUFFERS, WORDS)),
    st.tuples(st.just(SysReg.HDBSSPROD_EL2), st.one_of(st.integers(508, 513), WORDS)),
    st.tuples(st.just(SysReg.VTCR_EL2), VTCRS),
)
ESRS = st.one_of(
    st.sampled_from((data_abort(), data_abort(2), data_abort(s1ptw=True), data_abort() | CM, HVC)),
    WORDS.map(lambda word: word & ~syndrome.HDBSSF.mask),  # a bit that QEMU knows nothing of
)
FAULTS = st.tuples(st.sampled_from(sorted(PAGES)), ESRS)
STEPS = st.one_of(
    WRITES.map(lambda step: ("write", *step)),
    FAULTS.map(lambda step: ("fault", *step)),
    FAULTS.map(lambda step: ("fault", *step)),
    st.tuples(st.sampled_from(("interrupt", "read", "reset", "enter")), st.just(0), st.just(0)),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=40), hcr=st.sampled_from((HCR, HCR, 0)))
def test_any_software_leaves_a_trace_that_the_checker_accepts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]], hcr: int
) -> None:
    rig = Rig(tmp_path_factory.mktemp("any"))
    for ipa, leaf in PAGES.items():
        rig.map(ipa, leaf)
    running(rig, prod=509)
    for what, first, second in steps:
        inside = rig.pe.in_guest
        if what == "reset":
            rig.pe.reset(VTCR_OFF)
        elif inside and what == "fault":
            rig.fault(first, second)
        elif inside and what == "interrupt":
            rig.pe.leave(second, FAR, 0, 0x480, ELR)
        elif not inside and what == "write":
            rig.pe.write(first, second, 0)
        elif not inside and what == "read":
            value = rig.pe.model.read(SysReg.HDBSSPROD_EL2)
            rig.pe.deliver(SysReg.HDBSSPROD_EL2, value, 0)
        elif not inside:
            rig.enter(hcr if what == "enter" else HCR)
    rig.records()
