# SPDX-License-Identifier: GPL-2.0-or-later
"""The PE: faults of the HDBSS write (section 9 as state) and every permitted choice (13)."""

import pytest

from qemu_model.arch.registers import ProdFsc, SysReg
from qemu_model.arch.syndrome import Kind
from qemu_model.model.choices import Choices, Report, Visibility
from qemu_model.model.pe import OUTSTANDING_MAX, Access, RetryLimit
from qemu_model.model.producer import Producer
from tests.unit.arch.tables import PAGE_DESC, Ram
from tests.unit.model.bench import (
    AF,
    BASE,
    BUFFER,
    CLEAN,
    DBM,
    IPA,
    READ,
    WRITE,
    Bench,
    aborted,
    completed,
)

# --- section 9: faults of the HDBSS write, as state ---------------------------


@pytest.mark.parametrize("dirty", [False, True])
def test_external_abort_in_fsc_form(dirty: bool) -> None:
    bench = Bench(Choices(dirty_after_external_abort=dirty))
    bench.pe.write(SysReg.HDBSSPROD_EL2, 7)
    bench.ram.write_fault[BUFFER + 56] = ProdFsc.EXTERNAL_ABORT
    pa = bench.map(IPA)
    outcome = bench.pe.store(IPA)
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == 0b010000 << 26 | 7
    assert bool(bench.bits(pa) & WRITE) == dirty
    if dirty:
        assert completed(outcome).appended == ()
    else:
        assert aborted(outcome).refused
    bench.map(IPA + 0x1000)
    assert aborted(bench.pe.store(IPA + 0x1000)).abort.kind is Kind.PERMISSION


@pytest.mark.parametrize("dirty", [False, True])
def test_external_abort_precise(dirty: bool) -> None:
    bench = Bench(Choices(external_abort=Report.PRECISE, dirty_after_external_abort=dirty))
    bench.ram.write_fault[BUFFER] = ProdFsc.EXTERNAL_ABORT
    pa = bench.map(IPA)
    outcome = aborted(bench.pe.store(IPA))
    assert not outcome.refused
    assert (outcome.abort.esr & 0x3F, outcome.abort.hdbssf) == (0x17, True)
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == 0
    assert bool(bench.bits(pa) & WRITE) == dirty


def test_late_fsc_loses_the_entries_in_between() -> None:
    bench = Bench(Choices(fsc_delay=2))
    bench.ram.write_fault[BUFFER] = ProdFsc.EXTERNAL_ABORT
    pages = [bench.map(IPA + n * 0x1000) for n in range(4)]
    for n in range(3):
        assert completed(bench.pe.store(IPA + n * 0x1000)).appended == ()
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == 0b010000 << 26
    assert aborted(bench.pe.store(IPA + 3 * 0x1000)).refused
    assert [bool(bench.bits(pa) & WRITE) for pa in pages] == [True, True, True, False]


def test_late_fsc_is_there_after_a_dsb() -> None:
    bench = Bench(Choices(fsc_delay=9))
    bench.ram.write_fault[BUFFER] = ProdFsc.EXTERNAL_ABORT
    bench.map(IPA)
    completed(bench.pe.store(IPA))
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == 0
    bench.pe.dsb()
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == 0b010000 << 26


def test_gpf_never_updates_and_a_retry_appends_once() -> None:
    for report in Report:
        bench = Bench(Choices(gpf=report))
        bench.ram.write_fault[BUFFER] = ProdFsc.GPF
        pa = bench.map(IPA)
        outcome = aborted(bench.pe.store(IPA))
        assert outcome.abort.hdbssf
        assert outcome.refused == (report is Report.FSC)
        assert outcome.abort.esr & 0x3F == (0x0F if report is Report.FSC else 0x27)
        assert not bench.bits(pa) & WRITE
        assert bench.index == 0
        bench.ram.write_fault.clear()
        bench.pe.write(SysReg.HDBSSPROD_EL2, 0)
        assert len(completed(bench.pe.store(IPA)).appended) == 1


@pytest.mark.parametrize("keeps", [False, True])
def test_abort_of_the_descriptor_update(keeps: bool) -> None:
    bench = Bench(Choices(aborted_update_keeps_entry=keeps))
    pa = bench.map(IPA)
    bench.ram.swap_aborts.add(pa)
    outcome = aborted(bench.pe.store(IPA))
    assert (outcome.abort.esr & 0x3F, outcome.abort.hdbssf) == (0x17, False)
    assert bench.index == len(outcome.appended) == int(keeps)


@pytest.mark.parametrize("sz", range(10, 16))
def test_reserved_sz_is_taken_as_a_buffer_that_cannot_be_written(sz: int) -> None:
    bench = Bench(sz=sz)
    bench.map(IPA)
    assert aborted(bench.pe.store(IPA)).refused
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == 0b010000 << 26
    assert bench.ram.writes == []


def test_buffer_outside_memory() -> None:
    bench = Bench()
    bench.ram.holes.append(range(BUFFER, BUFFER + 4096))
    bench.map(IPA)
    assert aborted(bench.pe.store(IPA)).refused
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == 0b010000 << 26


def test_table_outside_memory() -> None:
    bench = Bench()
    bench.ram.holes.append(range(BASE, BASE + 0x2000))
    outcome = aborted(bench.pe.store(IPA))
    assert (outcome.abort.kind, outcome.abort.level) == (Kind.EXTERNAL_ABORT_WALK, 1)


# --- section 13: choices ------------------------------------------------------


def test_c1_zeroes_ahead_but_never_outside_the_buffer() -> None:
    bench = Bench(Choices(zero_ahead=3))
    bench.pe.write(SysReg.HDBSSPROD_EL2, 509)
    for index in range(508, 515):
        bench.ram.words[BUFFER + 8 * index] = 0xCA7
    bench.map(IPA)
    completed(bench.pe.store(IPA))
    assert [bench.slot(i) for i in range(508, 515)] == [0xCA7, IPA | 7, 0, 0, 0xCA7, 0xCA7, 0xCA7]


@pytest.mark.parametrize("dirties", [False, True])
def test_c2_failed_compare_and_swap(dirties: bool) -> None:
    bench = Bench(Choices(failed_cas_dirties=dirties))
    pa = bench.map(IPA)
    completed(bench.pe.access(IPA, Access.FAILED_CAS))
    assert bool(bench.bits(pa) & WRITE) == dirties
    assert bench.index == int(dirties)


@pytest.mark.parametrize("dirties", [False, True])
def test_c4_atomic_without_read_permission(dirties: bool) -> None:
    bench = Bench(Choices(unreadable_atomic_dirties=dirties))
    pa = bench.map(IPA, DBM | AF | PAGE_DESC)
    outcome = aborted(bench.pe.access(IPA, Access.ATOMIC))
    assert outcome.abort.kind is Kind.PERMISSION
    assert not outcome.abort.hdbssf
    assert bool(bench.bits(pa) & WRITE) == dirties
    assert bench.index == len(outcome.appended) == int(dirties)
    # An update that is not needed is not refused either.
    bench.pe.write(SysReg.HDBSSPROD_EL2, 512)
    bench.map(IPA + 0x1000, DBM | AF | PAGE_DESC)
    assert not aborted(bench.pe.access(IPA + 0x1000, Access.ATOMIC)).abort.hdbssf


@pytest.mark.parametrize("keeps", [False, True])
def test_c9_lost_race_between_two_pes(keeps: bool) -> None:
    bench = Bench(Choices(lost_cas_keeps_entry=keeps))
    pa = bench.map(IPA)
    bench.ram.race[pa] = bench.ram.words[pa] | WRITE
    outcome = completed(bench.pe.store(IPA))
    assert bench.index == len(outcome.appended) == int(keeps)
    # Another race: the winner only changed a software bit, so this PE still dirties.
    pa = bench.map(IPA + 0x1000)
    bench.ram.race[pa] = bench.ram.words[pa] | 1 << 55
    outcome = completed(bench.pe.store(IPA + 0x1000))
    assert bench.bits(pa) & WRITE
    assert len(outcome.appended) == 1 + keeps
    assert not outcome.appended[-1].cas_lost


def test_c9_a_lost_race_can_fill_the_buffer() -> None:
    bench = Bench()
    bench.pe.write(SysReg.HDBSSPROD_EL2, 511)
    pa = bench.map(IPA)
    bench.ram.race[pa] = bench.ram.words[pa] | 1 << 55
    outcome = aborted(bench.pe.store(IPA))
    assert outcome.refused
    assert len(outcome.appended) == 1
    assert not bench.bits(pa) & WRITE


def test_a_descriptor_that_never_stands_still_ends_the_access() -> None:
    class Restless(Ram):
        def compare_and_swap64(self, pa: int, expected: int, new: int) -> int | None:
            return expected ^ 1 << 55

    bench = Bench()
    bench.map(IPA)
    restless = Restless(bench.ram.words)
    bench.pe.memory = restless
    with pytest.raises(RetryLimit):
        bench.pe.store(IPA)


def test_c14_what_an_access_that_is_given_up_holds_back_is_bounded_too() -> None:
    class Restless(Ram):
        def compare_and_swap64(self, pa: int, expected: int, new: int) -> int | None:
            return expected ^ 1 << 55

    bench = Bench(Choices(visibility=Visibility.DSB))
    bench.map(IPA)
    completed(bench.pe.store(IPA))
    bench.map(IPA + 0x1000)
    bench.pe.memory = Restless(bench.ram.words)
    with pytest.raises(RetryLimit):
        bench.pe.store(IPA + 0x1000)
    assert bench.pe.outstanding == OUTSTANDING_MAX


@pytest.mark.parametrize("report", list(Report))
def test_9b_a_gpf_never_dirties_whatever_an_external_abort_does(report: Report) -> None:
    bench = Bench(Choices(gpf=report, dirty_after_external_abort=True))
    pa = bench.map(IPA)
    bench.ram.write_fault[BUFFER] = ProdFsc.GPF
    assert aborted(bench.pe.store(IPA)).abort.hdbssf
    assert not bench.bits(pa) & WRITE


def test_without_ha_hardware_sets_no_access_flag() -> None:
    bench = Bench(enables=0)
    pa = bench.map(IPA, CLEAN & ~AF)
    assert aborted(bench.pe.access(IPA, Access.READ)).abort.kind is Kind.ACCESS_FLAG
    assert not bench.bits(pa) & AF


def test_c14_only_dsb_and_then_a_context_synchronization_shows_all() -> None:
    """R_CGCHP, I_XXFYP, in either order of the two."""
    bench = Bench(Choices(visibility=Visibility.DSB))
    bench.map(IPA)
    completed(bench.pe.store(IPA))
    assert (bench.index, bench.slot(0)) == (0, 0)
    assert not bench.pe.context_synchronize()
    assert (bench.index, bench.slot(0)) == (0, 0)
    assert bench.pe.dsb() == 1
    assert (bench.index, bench.slot(0)) == (0, IPA | 7)
    assert bench.pe.dsb() == 0
    assert bench.pe.context_synchronize()
    assert (bench.index, bench.slot(0)) == (1, IPA | 7)
    assert not bench.pe.context_synchronize()


def test_c14_a_return_to_the_guest_is_both() -> None:
    bench = Bench(Choices(visibility=Visibility.DSB))
    bench.map(IPA)
    completed(bench.pe.store(IPA))
    bench.pe.enter_guest()
    assert (bench.index, bench.slot(0)) == (1, IPA | 7)


def test_c14_what_is_held_back_is_bounded() -> None:
    bench = Bench(Choices(visibility=Visibility.DSB))
    for page in range(OUTSTANDING_MAX + 2):
        bench.map(IPA + page * 0x1000)
        completed(bench.pe.store(IPA + page * 0x1000))
    assert [bench.slot(i) != 0 for i in range(4)] == [True, True, False, False]
    bench.pe.context_synchronize()
    assert bench.index == 2


def test_c14_a_write_of_the_register_is_seen_at_once() -> None:
    """What was outstanding still arrives, into slots that software has forgotten."""
    bench = Bench(Choices(visibility=Visibility.DSB))
    bench.map(IPA)
    completed(bench.pe.store(IPA))
    bench.pe.write(SysReg.HDBSSPROD_EL2, 5)
    bench.pe.context_synchronize()
    assert (bench.index, bench.slot(0)) == (5, 0)
    bench.pe.dsb()
    bench.pe.context_synchronize()
    assert (bench.index, bench.slot(0)) == (5, IPA | 7)


def test_c14_an_entry_that_is_taken_back_is_not_outstanding() -> None:
    bench = Bench(Choices(visibility=Visibility.DSB, lost_cas_keeps_entry=False))
    pa = bench.map(IPA)
    bench.ram.race[pa] = bench.ram.words[pa] | WRITE
    completed(bench.pe.store(IPA))
    assert bench.pe.outstanding == 0
    bench.pe.context_synchronize()
    assert bench.index == 0


def test_c14_a_buffer_outside_memory_is_told_at_once() -> None:
    bench = Bench(Choices(visibility=Visibility.DSB))
    bench.ram.holes.append(range(BUFFER, BUFFER + 4096))
    bench.map(IPA)
    assert aborted(bench.pe.store(IPA)).refused


def test_c14_an_entry_lost_at_the_dsb_is_told() -> None:
    bench = Bench(Choices(visibility=Visibility.DSB))
    bench.ram.write_fault[BUFFER] = ProdFsc.EXTERNAL_ABORT
    bench.map(IPA)
    completed(bench.pe.store(IPA))
    bench.pe.dsb()
    bench.pe.context_synchronize()
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) >> 26 == 0b010000


@pytest.mark.parametrize("sets", [False, True])
def test_c15_access_flag_beside_a_refusal(sets: bool) -> None:
    bench = Bench(Choices(af_with_refusal=sets))
    bench.pe.write(SysReg.HDBSSPROD_EL2, 512)
    pa = bench.map(IPA, CLEAN & ~AF)
    assert aborted(bench.pe.store(IPA)).refused
    assert bench.bits(pa) == DBM | READ | (AF if sets else 0)


def test_choices_are_frozen_and_checked() -> None:
    with pytest.raises(AttributeError):
        Choices().zero_ahead = 1  # type: ignore[misc]
    for bad in ({"zero_ahead": -1}, {"fsc_delay": -1}):
        with pytest.raises(ValueError, match="0 or more"):
            Choices(**bad)  # type: ignore[arg-type]


def test_producer_says_why_it_has_no_entry() -> None:
    with pytest.raises(ValueError, match="TG0"):
        Producer(vtcr=0b11 << 14).entry_for(IPA, 3)
