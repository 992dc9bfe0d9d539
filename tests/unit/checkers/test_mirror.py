# SPDX-License-Identifier: GPL-2.0-or-later
"""The mirror agrees with what the model does, and each of its rules fires."""

import time
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from qemu_model.arch.registers import VTCR_HD, VTCR_HDBSS, ProdFsc, SysReg
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.mirror import check_trace
from qemu_model.model.choices import Choices
from qemu_model.model.pe import Aborted, Access
from qemu_model.trace import FLAG_CAS_LOST, Anomaly, Kind, RawRecord
from tests.unit.arch.tables import BLOCK, vtcr
from tests.unit.checkers.recorder import (
    AF,
    BUFFER,
    CLEAN,
    DBM,
    HVC_ESR,
    VTCR_ON,
    WRITE,
    Recorder,
    permission_fault,
)

IPA = 0x1_2345_6000
FIELDS = {name: 4 + place for place, name in enumerate("abcdef")}


@cache
def everything() -> Recorder:
    """A trace in which every kind of record and both ends of a buffer occur.

    Shared by the tests, which change copies only.
    """
    recorder = Recorder(pes=2)
    for page in range(520):
        recorder.map(IPA + page * 0x1000)
    recorder.map(0x40_0000, CLEAN & ~2 & ~AF | BLOCK, level=2)
    recorder.read(0, SysReg.ID_AA64MMFR1_EL1)
    recorder.start(0)
    recorder.start(1, sz=1)
    recorder.add(Kind.MARK, 1, 4)
    recorder.store(0x41_2345, pe=1)
    for page in range(513):
        recorder.store(IPA + page * 0x1000)
    recorder.read(0, SysReg.HDBSSPROD_EL2)
    recorder.read(0, SysReg.HDBSSBR_EL2)
    recorder.write(0, SysReg.HDBSSPROD_EL2, 0)
    recorder.enter(0)
    recorder.store(IPA + 512 * 0x1000)
    recorder.exit(0, vector=0x480, esr=permission_fault(hdbssf=True))
    recorder.exit(1)
    recorder.read(1, SysReg.VTCR_EL2)
    recorder.add(Kind.RESET, 1, 0, 0, 0)
    recorder.end()
    return recorder


def test_agrees_with_the_model() -> None:
    records = everything().records
    assert {record[1] for record in records} >= {1, 2, 3, 4, 5, 6, 7, 8, 11, 12}
    assert check_trace(records) == []
    assert check_trace(iter(records)) == []
    assert check_trace([]) == []


def position(records: list[RawRecord], kind: Kind, nth: int = 0) -> int:
    return [at for at, record in enumerate(records) if record[1] == kind][nth]


def mutated(records: list[RawRecord], at: int, **fields: int) -> list[RawRecord]:
    """Copy a trace with fields a..f, pe, kind or flags of one record replaced."""
    changed = list(records[at])
    for name, value in fields.items():
        changed[{"kind": 1, "pe": 2, "flags": 3, **FIELDS}[name]] = value
    seq, kind, pe, flags, a, b, c, d, e, f = changed
    return [*records[:at], (seq, kind, pe, flags, a, b, c, d, e, f), *records[at + 1 :]]


def only(found: list[Divergence]) -> Divergence:
    assert len(found) == 1, found
    assert found[0].checker == "mirror"
    return found[0]


# (record, nth of its kind, changed fields, part of the rule that fires)
TWINS: list[tuple[Kind, int, dict[str, int], str]] = [
    (Kind.RESET, 0, {"a": 1 << 60}, "RES0"),
    (Kind.RESET, 0, {"b": 1 << 20}, "RES0"),
    (Kind.WRITE, 0, {"c": BUFFER | 0x10}, "RES0"),
    (Kind.WRITE, 1, {"c": 1}, "HDBSSPROD_EL2 (RES0"),
    (Kind.WRITE, 2, {"c": VTCR_ON & ~VTCR_HD.mask}, "VTCR_EL2"),
    (Kind.WRITE, 0, {"a": SysReg.ESR_EL2}, "MSR"),
    (Kind.WRITE, 0, {"a": SysReg.ID_AA64MMFR1_EL1}, "MSR"),
    (Kind.READ, 0, {"b": 2}, "HAFDBS"),
    (Kind.READ, 0, {"b": 5}, "HAFDBS"),
    (Kind.READ, 1, {"b": 511}, "HDBSSPROD_EL2"),
    (Kind.READ, 2, {"b": 0}, "HDBSSBR_EL2"),
    (Kind.READ, 3, {"b": VTCR_ON & ~VTCR_HD.mask}, "VTCR_EL2"),
    (Kind.READ, 3, {"a": 0}, "MRS"),
    (Kind.ENTRY, 0, {"a": BUFFER + 4096}, "guest entry"),
    (Kind.ENTRY, 0, {"b": 1}, "guest entry"),
    (Kind.ENTRY, 0, {"c": VTCR_ON & ~VTCR_HD.mask}, "guest entry"),
    (Kind.ENTRY, 0, {"e": 0}, "HCR_EL2"),
    (Kind.ENTRY, 0, {"e": 1 | 1 << 27}, "HCR_EL2"),
    (Kind.APPEND, 3, {"flags": 3}, "R_PCTTC"),
    (Kind.APPEND, 3, {"c": BUFFER}, "R_PCTTC"),
    (Kind.APPEND, 3, {"b": IPA + 0x2007 ^ 0x1000}, "~R_QWSGD"),
    (Kind.APPEND, 3, {"b": IPA + 0x2006}, "~R_QWSGD"),
    (Kind.APPEND, 3, {"b": IPA + 0x2005}, "stage 2 descriptor"),
    (Kind.APPEND, 3, {"b": IPA + 0x200F}, "stage 2 descriptor"),
    (Kind.APPEND, 0, {"b": 0x41_2005}, "~R_QWSGD"),
    (Kind.APPEND, 3, {"d": 0x1004}, "stage 2 descriptor"),
    (Kind.APPEND, 3, {"e": CLEAN & ~DBM}, "R_PZFQC"),
    (Kind.APPEND, 3, {"e": CLEAN | WRITE}, "R_XZFQH"),
    (Kind.APPEND, 3, {"e": CLEAN & ~1}, "stage 2 descriptor"),
    (Kind.APPEND, 3, {"f": CLEAN}, "R_PQJJR"),
    (Kind.APPEND, 0, {"f": CLEAN & ~2 & ~AF | WRITE}, "R_PQJJR"),  # dirty with AF 0
    (Kind.APPEND, 3, {"kind": Kind.REFUSE}, "R_STJMN"),
    (Kind.REFUSE, 0, {"kind": Kind.APPEND}, "R_RXCMY"),
    (Kind.REFUSE, 0, {"b": permission_fault()}, "HDBSSF"),
    (Kind.REFUSE, 0, {"b": permission_fault(hdbssf=True) ^ 8}, "HDBSSF"),  # not a permission FSC
    (Kind.REFUSE, 0, {"b": HVC_ESR | 1 << 43 | 0x0F}, "HDBSSF"),
    (Kind.REFUSE, 0, {"b": permission_fault(2, hdbssf=True)}, "stage 2 descriptor"),
    (Kind.REFUSE, 0, {"c": 511}, "R_STJMN"),
    (Kind.REFUSE, 0, {"f": BUFFER | 1}, "R_STJMN"),
    (Kind.REFUSE, 0, {"e": CLEAN & ~DBM}, "R_PZFQC"),
    (Kind.EXIT, 0, {"a": permission_fault()}, "R_STJMN"),
    (Kind.EXIT, 0, {"e": 0x480}, "R_STJMN"),
    (Kind.EXIT, 0, {"d": 0}, "R_STJMN"),
    (Kind.EXIT, 1, {"e": 0x400}, "HDBSSF"),  # an interrupt's stale ESR, as if it were fresh
    (Kind.EXIT, 2, {"d": 0}, "R_PCTTC"),
    (Kind.EXIT, 2, {"e": 0x200}, "lower EL"),
    (Kind.EXIT, 2, {"a": permission_fault(hdbssf=True)}, "HDBSSF"),
    (Kind.EXIT, 2, {"kind": Kind.ENTRY}, "PE in EL1&0"),
    (Kind.ENTRY, 0, {"kind": Kind.EXIT}, "PE at EL2"),
    (Kind.ENTRY, 0, {"kind": Kind.MARK}, "PE at EL2"),  # then the first append is out of place
    (Kind.RESET, 0, {"kind": Kind.MARK}, "not left reset"),
    (Kind.EXIT, 0, {"kind": Kind.MARK}, "next record"),
    (Kind.MARK, 0, {"kind": 77}, "PE in EL1&0"),
]


@pytest.mark.parametrize(("kind", "nth", "fields", "rule"), TWINS)
def test_each_rule_fires(kind: Kind, nth: int, fields: dict[str, int], rule: str) -> None:
    records = everything().records
    at = position(records, kind, nth)
    found = check_trace(mutated(records, at, **fields))
    divergence = only(found)
    assert rule in divergence.rule, divergence
    assert divergence.required != divergence.seen
    assert divergence.records


def test_append_without_enable() -> None:
    for missing in (VTCR_HDBSS.mask, VTCR_HD.mask):
        recorder = Recorder()
        recorder.map(IPA)
        recorder.start()
        recorder.store(IPA)
        records = recorder.records
        off = VTCR_ON & ~missing
        records = mutated(records, position(records, Kind.WRITE, 2), b=off, c=off)
        records = mutated(records, position(records, Kind.ENTRY), c=off)
        assert "R_GKFDY" in only(check_trace(records)).rule
        at = position(records, Kind.APPEND)
        refuse = mutated(records, at, kind=Kind.REFUSE)
        assert "refuses only while it is 1" in only(check_trace(refuse)).rule


def test_append_with_fsc() -> None:
    recorder = Recorder()
    recorder.map(IPA)
    recorder.start()
    recorder.store(IPA)
    fsc = 0b010000 << 26
    records = mutated(recorder.records, position(recorder.records, Kind.WRITE, 1), b=fsc, c=fsc)
    records = mutated(records, position(records, Kind.ENTRY), b=fsc)
    assert "no append while FSC" in only(check_trace(records)).rule


def test_append_under_a_vtcr_that_has_no_walk() -> None:
    recorder = Recorder()
    recorder.map(IPA)
    recorder.start()
    recorder.store(IPA)
    bad = VTCR_ON | 0b11 << 14
    records = mutated(recorder.records, position(recorder.records, Kind.WRITE, 2), b=bad, c=bad)
    records = mutated(records, position(records, Kind.ENTRY), c=bad)
    divergence = only(check_trace(records))
    assert "stage 2 walk" in divergence.rule
    assert "TG0" in divergence.seen


def test_block_level_above_the_start_level() -> None:
    """Start level 2: a 1 GB block cannot have been found."""
    recorder = Recorder()
    recorder.map(IPA, CLEAN & ~2 | BLOCK, level=1)
    recorder.start()
    recorder.store(IPA)
    low = vtcr("4k", 34, 2) | VTCR_ON & ~0xFFFF_FFFF | VTCR_ON & 0b11 << 21
    records = mutated(recorder.records, position(recorder.records, Kind.WRITE, 2), b=low, c=low)
    records = mutated(records, position(records, Kind.ENTRY), c=low)
    assert "stage 2 descriptor" in only(check_trace(records)).rule


def test_reserved_sz_and_buffer_outside_ram() -> None:
    recorder = Recorder()
    recorder.map(IPA)
    recorder.start(sz=12)
    assert isinstance(recorder.store(IPA), Aborted)
    recorder.write(0, SysReg.HDBSSBR_EL2, BUFFER)
    recorder.write(0, SysReg.HDBSSPROD_EL2, 5)
    recorder.enter()
    recorder.ram.write_fault[BUFFER + 40] = ProdFsc.EXTERNAL_ABORT
    assert isinstance(recorder.store(IPA), Aborted)
    records = recorder.records
    reasons = [record[4] for record in records if record[1] == Kind.ANOMALY]
    assert reasons == [Anomaly.RESERVED_SZ, Anomaly.BUFFER_OUTSIDE_RAM]
    assert check_trace(records) == []
    # Without the anomaly the refusal is not explained.
    for nth in range(2):
        at = position(records, Kind.ANOMALY, nth)
        without = mutated(records, at, a=Anomaly.WALK_DISAGREES)
        assert "R_STJMN" in only(check_trace(without)).rule
        wrong = only(check_trace(mutated(records, at, b=0x1234)))
        assert ("~R_JHHQW" if nth else "SZ") in wrong.rule
    at = position(records, Kind.ANOMALY)
    swapped = mutated(records, at, kind=Kind.APPEND, c=BUFFER)
    assert "SZ" in only(check_trace(swapped)).rule


def test_other_anomalies_change_nothing() -> None:
    recorder = Recorder()
    recorder.start()
    for reason in Anomaly:
        if reason not in (Anomaly.BUFFER_OUTSIDE_RAM, Anomaly.RESERVED_SZ):
            recorder.add(Kind.ANOMALY, 0, reason, 1)
    recorder.exit()
    assert check_trace(recorder.end()) == []


def test_lost_race_keeps_its_entry() -> None:
    recorder = Recorder()
    pa = recorder.map(IPA)
    recorder.start()
    recorder.ram.race[pa] = recorder.ram.words[pa] | WRITE
    recorder.store(IPA)
    records = recorder.records
    at = position(records, Kind.APPEND)
    assert records[at][3] & FLAG_CAS_LOST
    assert check_trace(records) == []
    takes_back = Choices(lost_cas_keeps_entry=False)
    assert "lost_cas_keeps_entry=no" in only(check_trace(records, takes_back)).rule
    # The same, but said to have been won, has not gained S2AP[1] by this PE's update.
    other = mutated(records, at, flags=0, f=records[at][8])
    assert "R_PQJJR" in only(check_trace(other)).rule


def test_stage_1_walk_refused() -> None:
    recorder = Recorder()
    recorder.map(IPA)
    recorder.start()
    recorder.exit()
    recorder.write(0, SysReg.HDBSSPROD_EL2, 512)
    recorder.enter()
    assert isinstance(recorder.access(IPA, Access.STAGE1_UPDATE), Aborted)
    assert check_trace(recorder.end()) == []


def test_one_finding_a_pe_with_the_records_that_led_to_it() -> None:
    recorder = everything()
    records = recorder.records
    first = position(records, Kind.APPEND, 9)
    records = mutated(records, first, c=1)
    records = mutated(records, position(records, Kind.APPEND, 30), c=1)
    records = mutated(records, position(records, Kind.EXIT, 2), d=7)
    found = check_trace(records)
    assert [divergence.rule[:7] for divergence in found] == ["R_PCTTC", "R_PCTTC"]
    assert f"record {first + 1}" in found[0].summary
    assert f"IPA {records[first][4]:#x}" in found[0].summary
    assert len(found[0].records) == 6
    assert found[0].records[-1].startswith(f"#{first + 1} PE 0 APPEND")
    assert "PE 1" in found[1].summary


def test_last_records_of_the_page_are_shown_from_every_pe() -> None:
    recorder = Recorder(pes=2)
    pa = recorder.map(IPA)
    for page in range(1, 12):
        recorder.map(IPA + page * 0x1000)
    recorder.start(0)
    recorder.start(1)
    recorder.store(IPA, pe=0)
    for page in range(1, 12):
        recorder.store(IPA + page * 0x1000, pe=1)
    recorder.ram.words[pa] &= ~WRITE
    recorder.store(IPA, pe=1)
    records = recorder.records
    divergence = only(check_trace(mutated(records, len(records) - 1, c=0)))
    assert any("PE 0 APPEND" in line for line in divergence.records)


def test_unknown_kinds_after_a_finding_do_no_harm() -> None:
    records = everything().records
    records = mutated(records, position(records, Kind.ENTRY), a=1)
    assert len(check_trace(mutated(records, len(records) - 2, kind=999, pe=0))) == 1


def many(count: int) -> Iterator[RawRecord]:
    """Yield a legal trace of ``count`` records, mostly appends, of one PE."""
    seq = 0

    def record(kind: Kind, *fields: int, flags: int = 0) -> RawRecord:
        nonlocal seq
        seq += 1
        a, b, c, d, e, f = (*fields, 0, 0, 0, 0, 0, 0)[:6]
        return (seq, int(kind), 0, flags, a, b, c, d, e, f)

    yield record(Kind.RESET, BUFFER, 0, VTCR_ON)
    page = 0
    while seq < count:
        yield record(Kind.WRITE, SysReg.HDBSSPROD_EL2)
        yield record(Kind.ENTRY, BUFFER, 0, VTCR_ON, 0, 1)
        for index in range(20):
            page += 1
            ipa = page % 0x10_0000 << 12
            slot, pa = BUFFER + 8 * index, 0x4000_0000 + 8 * page
            yield record(Kind.APPEND, ipa, ipa | 7, slot, pa, CLEAN, CLEAN | WRITE, flags=index)
        yield record(Kind.EXIT, HVC_ESR, 0, 0, 20, 0x400)
        yield record(Kind.READ, SysReg.HDBSSPROD_EL2, 20)


def test_replays_a_million_records_in_ten_seconds_of_processor_time() -> None:
    """A tenth of them, because the figure proper is the benchmark's."""
    records = list(many(100_000))
    start = time.process_time()
    assert check_trace(records) == []
    assert time.process_time() - start < 1.0
    assert only(check_trace(mutated(records, position(records, Kind.APPEND, 80_000), f=1)))


def test_choices_that_a_trace_cannot_show_are_accepted() -> None:
    choices: list[Callable[[], Choices]] = [
        lambda: Choices(zero_ahead=8),
        lambda: Choices(failed_cas_dirties=False),
        lambda: Choices(lost_cas_keeps_entry=False),
        lambda: Choices(af_with_refusal=True),
        lambda: Choices(unreadable_atomic_dirties=True),
    ]
    for make in choices:
        recorder = Recorder(choices=make())
        pages = [recorder.map(IPA + page * 0x1000, CLEAN & ~AF) for page in range(600)]
        recorder.ram.race[pages[7]] = CLEAN | 1 << 55
        recorder.start()
        for page in range(600):
            if not recorder.inside[0]:
                recorder.write(0, SysReg.HDBSSPROD_EL2, 0)
                recorder.enter()
            kind = Access.FAILED_CAS if page % 5 == 0 else Access.WRITE
            recorder.access(IPA + page * 0x1000, kind)
        assert check_trace(recorder.end()) == [], choices
