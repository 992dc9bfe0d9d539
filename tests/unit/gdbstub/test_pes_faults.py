# SPDX-License-Identifier: GPL-2.0-or-later
"""Injections on an emulated PE: what it does, and a trace that the mirror accepts."""

from collections import Counter
from pathlib import Path

import pytest

from qemu_model.arch import syndrome
from qemu_model.arch.registers import SysReg
from qemu_model.arch.syndrome import Abort, Kind
from qemu_model.checkers.mirror import check_trace
from qemu_model.gdbstub.pes import EmulatedPe, Verdict
from qemu_model.model.choices import BEST, Choices, Visibility, choose
from qemu_model.model.injection import Injector, parse
from qemu_model.trace import Kind as Record
from qemu_model.trace import RawRecord, describe, read_trace
from tests.unit.gdbstub.test_pes import BUFFER, CLEAN, IPA, OUTPUT, WRITE, Rig, data_abort

PAGES = 6
ABORT, GPF = 0b010000 << 26, 0b101000 << 26


class Faulty(Rig):
    """A PE in the guest, pages mapped, with these injections."""

    def __init__(self, directory: Path, *texts: str, choices: Choices = BEST) -> None:
        super().__init__(directory)
        self.choices = choices
        settled = tuple(parse(text).settled(choices, 7) for text in texts)
        self.pe = EmulatedPe(0, self.ram, self._trace, choices, Injector(settled))
        self.pe.reset(0)
        self.leaves = [self.map(IPA + page * 0x1000) for page in range(PAGES)]
        self.registers()
        self.enter()

    def store(self, page: int) -> Verdict:
        return self.fault(IPA + page * 0x1000)

    def dirty(self) -> list[int]:
        """Pages whose descriptors are dirty."""
        return [page for page, pa in enumerate(self.leaves) if self.ram.words[pa] & WRITE]

    def drain(self) -> int:
        """As a kernel does; returns HDBSSPROD_EL2."""
        if self.pe.in_guest:
            self.pe.leave(0x16 << 26, 0, 0, 0x480, 0)
        self.pe.dsb(0xD)
        self.pe.isb(0x1)
        prod = self.pe.model.read(SysReg.HDBSSPROD_EL2)
        self.pe.deliver(SysReg.HDBSSPROD_EL2, prod, 0x2)
        self.pe.write(SysReg.HDBSSPROD_EL2, 0, 0x3)
        return prod

    def records(self) -> list[RawRecord]:
        self._trace.close()
        records = list(read_trace(self._path))
        assert [divergence.seen for divergence in check_trace(records, self.choices)] == []
        return records

    def kinds(self) -> Counter[int]:
        return Counter(record[1] for record in self.records())


def test_abort_told_by_fsc(tmp_path: Path) -> None:
    rig = Faulty(tmp_path, "abort,append=2")
    assert rig.store(0) is Verdict.RETRY
    assert rig.store(1) is Verdict.REFUSED
    assert rig.dirty() == [0]
    assert rig.drain() == ABORT | 1
    rig.enter()
    assert rig.store(1) is Verdict.RETRY
    kinds = rig.kinds()
    assert (kinds[Record.INJECT], kinds[Record.REFUSE], kinds[Record.LOST]) == (1, 1, 0)


def test_abort_that_dirties(tmp_path: Path) -> None:
    rig = Faulty(tmp_path, "abort,append=2,dirty=yes")
    assert [rig.store(0), rig.store(1), rig.store(2)] == [
        Verdict.RETRY, Verdict.RETRY, Verdict.REFUSED,
    ]  # fmt: skip
    assert rig.dirty() == [0, 1]
    assert rig.drain() == ABORT | 1
    lost = next(record for record in rig.records() if record[1] == Record.LOST)
    clean = CLEAN | OUTPUT
    assert lost[4:8] == (IPA + 0x1000, rig.leaves[1], clean, clean | WRITE)


@pytest.mark.parametrize("dirty", ["yes", "no"])
def test_precise_abort(tmp_path: Path, dirty: str) -> None:
    rig = Faulty(tmp_path, f"abort,report=precise,dirty={dirty}")
    assert rig.store(0) is Verdict.REFUSED
    assert rig.pe.refused is not None
    abort = Abort.decode(rig.pe.refused[1])
    assert abort is not None
    assert (abort.kind, abort.level, abort.hdbssf) == (Kind.EXTERNAL_ABORT_WALK, 3, True)
    assert rig.dirty() == ([0] if dirty == "yes" else [])
    assert rig.drain() == 0
    assert rig.kinds()[Record.REFUSE] == 0


@pytest.mark.parametrize("report", ["fsc", "precise"])
def test_gpf(tmp_path: Path, report: str) -> None:
    rig = Faulty(tmp_path, f"gpf,report={report}")
    assert rig.store(0) is Verdict.REFUSED
    assert rig.pe.refused is not None
    kind = Kind.PERMISSION if report == "fsc" else Kind.GPF_WALK
    abort = Abort.decode(rig.pe.refused[1])
    assert abort is not None and (abort.kind, abort.hdbssf) == (kind, True)
    assert rig.dirty() == []
    assert rig.drain() == (GPF if report == "fsc" else 0)
    rig.records()


def test_late_fsc_counts_updates(tmp_path: Path) -> None:
    rig = Faulty(tmp_path, "abort,append=2,late=2")
    assert [rig.store(page) for page in range(4)] == [Verdict.RETRY] * 4
    assert rig.store(4) is Verdict.REFUSED
    assert rig.dirty() == [0, 1, 2, 3]
    assert rig.drain() == ABORT | 1
    kinds = rig.kinds()
    assert (kinds[Record.LOST], kinds[Record.LATE], kinds[Record.APPEND]) == (3, 1, 1)


def test_late_fsc_is_there_after_the_exit(tmp_path: Path) -> None:
    rig = Faulty(tmp_path, "abort,late=100")
    rig.store(0)
    assert rig.drain() == ABORT
    assert rig.kinds()[Record.LATE] == 1


def test_late_fsc_waits_for_a_dsb(tmp_path: Path) -> None:
    choices = Choices(visibility=Visibility.DSB)
    rig = Faulty(tmp_path, "abort,late=100", choices=choices)
    rig.store(0)
    rig.pe.leave(0x16 << 26, 0, 0, 0x480, 0)
    assert rig.pe.model.producer.fsc == 0 and rig.pe.awaits_dsb
    assert rig.drain() == ABORT
    rig.records()


def test_lost_races_leave_duplicates(tmp_path: Path) -> None:
    rig = Faulty(tmp_path, "cas-lost,append=2,times=3")
    rig.store(0)
    rig.store(1)
    assert rig.dirty() == [0, 1]
    assert [rig.ram.words[BUFFER + 8 * i] for i in range(5)] == [
        IPA | 7, *[IPA + 0x1000 | 7] * 4,
    ]  # fmt: skip
    assert rig.drain() == 5
    rig.records()


def test_lost_races_that_take_the_entry_back(tmp_path: Path) -> None:
    choices = Choices(lost_cas_keeps_entry=False, visibility=Visibility.DSB)
    rig = Faulty(tmp_path, "cas-lost,times=3", choices=choices)
    rig.store(0)
    assert rig.drain() == 1
    assert rig.kinds()[Record.APPEND] == 1


@pytest.mark.parametrize("visibility", Visibility)
def test_full_exactly_at_a_store(tmp_path: Path, visibility: Visibility) -> None:
    rig = Faulty(tmp_path, "fill,append=2", choices=Choices(visibility=visibility))
    assert [rig.store(0), rig.store(1), rig.store(2)] == [
        Verdict.RETRY, Verdict.RETRY, Verdict.REFUSED,
    ]  # fmt: skip
    assert rig.dirty() == [0, 1]
    assert rig.drain() == 512
    assert rig.kinds()[Record.APPEND] == 512


def test_refusals_that_look_like_stage_1_walks(tmp_path: Path) -> None:
    rig = Faulty(tmp_path, "fill", "s1ptw,refusal=1", "fetch,refusal=2")
    rig.store(0)
    isv = data_abort() | 1 << 24 | 3 << 16
    assert rig.fault(IPA + 0x1000, isv) is Verdict.REFUSED
    assert rig.pe.refused is not None
    hdbssf = syndrome.HDBSSF.mask
    assert rig.pe.refused[1] == data_abort(s1ptw=True) | hdbssf
    rig.enter()
    assert rig.fault(IPA + 0x1000, isv) is Verdict.REFUSED
    assert rig.pe.refused is not None
    assert rig.pe.refused[1] == Abort(True, Kind.PERMISSION, 3, s1ptw=True).esr | hdbssf
    rig.records()


def test_index_is_preset_only_where_nothing_is_forgotten(tmp_path: Path) -> None:
    rig = Faulty(tmp_path, "index=last,entry=2", "index=max,entry=3")
    rig.store(0)
    rig.pe.leave(0x16 << 26, 0, 0, 0x480, 0)
    rig.enter()  # one entry is pending: not counted
    assert rig.drain() == 1
    rig.enter()
    assert (rig.store(1), rig.store(2)) == (Verdict.RETRY, Verdict.REFUSED)
    assert rig.drain() == 512
    rig.enter()
    assert rig.store(2) is Verdict.REFUSED
    assert rig.drain() == 0x7FFFF
    assert rig.kinds()[Record.INJECT] == 2


def test_unknown_registers(tmp_path: Path) -> None:
    rig = Faulty(tmp_path, "unknown")
    rig.pe.reset(0)
    resets = [record for record in rig.records() if record[1] == Record.RESET]
    assert len({record[4:7] for record in resets}) == 3  # the Rig's own, and two
    assert all(record[4] & 0xFF00_0000_0000_0FF0 == 0 for record in resets)


@pytest.mark.parametrize("seed", range(40))
def test_any_choices_with_any_injections(tmp_path: Path, seed: int) -> None:
    """Whatever the PE does, the trace says it, and the mirror follows."""
    choices = choose("random", seed)
    kinds = ("abort", "gpf", "cas-lost", "fill", "abort,report=fsc", "index=full")
    texts = (kinds[seed % 6], f"{kinds[seed // 6 % 6]}", "abort,append=7,dirty=yes", "unknown")
    rig = Faulty(tmp_path, *texts, choices=choices)
    for turn in range(4):
        for page in range(PAGES):
            if not rig.pe.in_guest:
                rig.drain()
                rig.enter()
            rig.store((page + turn) % PAGES)
        for leaf in rig.leaves:
            rig.ram.words[leaf] &= ~WRITE
    assert rig.kinds()[Record.INJECT] >= 1


@pytest.mark.parametrize(
    ("texts", "kind", "change"),
    [
        (("abort,append=2",), Record.INJECT, {7: 1}),  # FSC not set
        (("abort,append=2,report=precise",), Record.EXIT, {4: data_abort()}),
        (("gpf,append=2,report=precise",), Record.EXIT, {7: 0}),  # INDEX moved
        (("abort,append=2,dirty=yes",), Record.LOST, {7: CLEAN}),
        (("abort,append=2,late=2",), Record.LATE, {4: 1}),
        (("index=last,entry=1",), Record.INJECT, {7: 600 << 26}),
    ],
)
def test_the_mirror_fires(
    tmp_path: Path, texts: tuple[str, ...], kind: Record, change: dict[int, int]
) -> None:
    rig = Faulty(tmp_path, *texts)
    for page in range(4):
        if rig.pe.in_guest:
            rig.store(page)
    records = rig.records()
    at = next(i for i, record in enumerate(records) if record[1] == kind)
    wrong = list(records[at])
    for field, value in change.items():
        wrong[field] = value
    records[at] = tuple(wrong)  # type: ignore[assignment]
    found = check_trace(records)
    assert found and describe(records[at]) in found[0].records


@pytest.mark.parametrize(
    ("text", "kind", "rule"),
    [
        ("abort,append=2,late=2", Record.INJECT, "~R_JHHQW, R_LHLSD"),  # it is still under way
        ("abort,append=2,late=2", Record.LATE, "I_LMSZL"),
        ("abort,append=2,dirty=yes", Record.LOST, "R_WZKFT"),
        ("index=last,entry=1", Record.INJECT, "INJECT index"),
    ],
)
def test_the_mirror_wants_each_of_them_once(
    tmp_path: Path, text: str, kind: Record, rule: str
) -> None:
    rig = Faulty(tmp_path, text)
    for page in range(4):
        if rig.pe.in_guest:
            rig.store(page)
    records = rig.records()
    at = next(i for i, record in enumerate(records) if record[1] == kind)
    records.insert(at, records[at])
    assert [d.rule.startswith(rule) for d in check_trace(records)] == [True]


def test_only_a_buffer_that_is_filled_has_entries_of_races_without_any(tmp_path: Path) -> None:
    """Where INDEX is taken back after a race that was lost."""
    rig = Faulty(tmp_path, "fill,append=2", choices=choose("lost_cas_keeps_entry=no"))
    for page in range(2):
        rig.store(page)
    records = rig.records()
    at = next(i for i, record in enumerate(records) if record[1] == Record.INJECT)
    (found,) = check_trace(records[:at] + records[at + 1 :], rig.choices)
    assert found.rule.startswith("lost_cas_keeps_entry=no")


def test_a_late_fsc_is_forgotten_with_a_reset(tmp_path: Path) -> None:
    rig = Faulty(tmp_path, "abort,append=1,late=2")
    rig.store(0)
    rig.pe.reset(0)
    rig.pe.record(Record.LATE, 0)
    rig._trace.close()
    (divergence,) = check_trace(read_trace(tmp_path / "trace.bin"))
    assert divergence.rule.startswith("I_LMSZL")


@pytest.mark.parametrize("kind", [Record.LOST, Record.LATE])
def test_the_mirror_wants_a_fault_first(tmp_path: Path, kind: Record) -> None:
    rig = Faulty(tmp_path)
    rig.pe.record(kind, IPA, rig.leaves[0], CLEAN, CLEAN | WRITE)
    rig._trace.close()
    (divergence,) = check_trace(read_trace(tmp_path / "trace.bin"))
    assert divergence.seen == "none"
