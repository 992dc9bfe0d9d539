# SPDX-License-Identifier: GPL-2.0-or-later
"""The PE: the digest's test ideas of sections 2 to 9 that concern this machine."""

import itertools

import pytest

from qemu_model.arch import syndrome
from qemu_model.arch.registers import ProdFsc, SysReg
from qemu_model.arch.syndrome import Kind
from qemu_model.model.pe import (
    Aborted,
    Access,
    Completed,
    TrappedToEl3,
    Undefined,
)
from tests.unit.arch.tables import BLOCK, PAGE_DESC
from tests.unit.model.bench import (
    AF,
    BUFFER,
    CLEAN,
    DBM,
    HA,
    HD,
    HDBSS,
    IPA,
    READ,
    WRITE,
    Bench,
    aborted,
    completed,
)

# --- section 2: enables -------------------------------------------------------


def test_only_all_enables_together_append() -> None:
    for ha, hd, hdbss, en, vm in itertools.product((0, 1), repeat=5):
        bench = Bench(enables=ha * HA | hd * HD | hdbss * HDBSS)
        bench.pe.hdbssen = bool(en)
        bench.pe.write(SysReg.HCR_EL2, vm)
        bench.map(IPA)
        outcome = bench.pe.store(IPA)
        on = bool(ha and hd and hdbss and en and vm)
        assert bench.pe.hdbss_on == on
        assert bench.pe.producer.index == int(on), (ha, hd, hdbss, en, vm)
        assert isinstance(outcome, Completed) == (not vm or bool(ha and hd))


def test_vtcr_reads_back_as_written() -> None:
    bench = Bench()
    for bit in (45, 44, 38, 37, 36, 22, 21):
        assert bench.pe.write(SysReg.VTCR_EL2, 1 << bit) == 1 << bit
        assert bench.pe.read(SysReg.VTCR_EL2) == 1 << bit


def test_hdbss_off_touches_nothing_and_never_refuses() -> None:
    bench = Bench(enables=HA | HD)
    bench.pe.write(SysReg.HDBSSPROD_EL2, 0x7FFFF)
    pa = bench.map(IPA)
    assert completed(bench.pe.store(IPA)).appended == ()
    assert bench.bits(pa) == DBM | WRITE | READ | AF
    assert bench.ram.writes == []
    assert bench.index == 0x7FFFF


def test_hdbssen_0_dirties_without_log_even_when_full() -> None:
    bench = Bench()
    bench.pe.write(SysReg.HDBSSPROD_EL2, 512)
    bench.pe.hdbssen = False
    pa = bench.map(IPA)
    assert completed(bench.pe.store(IPA)).appended == ()
    assert bench.bits(pa) & WRITE


def test_tge_leaves_stage_2_out() -> None:
    bench = Bench()
    bench.pe.write(SysReg.HCR_EL2, 1 | 1 << 27)
    assert completed(bench.pe.store(0xDEAD_BEEF)).leaf is None


# --- sections 3 to 5: registers -----------------------------------------------


def test_prod_all_ones_reads_back_fsc_and_index() -> None:
    bench = Bench()
    assert bench.pe.write(SysReg.HDBSSPROD_EL2, 2**64 - 1) == 0xFC07_FFFF
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == 0xFC07_FFFF


def test_br_res0() -> None:
    bench = Bench()
    assert bench.pe.write(SysReg.HDBSSBR_EL2, 2**64 - 1) == 0x00FF_FFFF_FFFF_F00F
    assert bench.pe.read(SysReg.HDBSSBR_EL2) == 0x00FF_FFFF_FFFF_F00F


@pytest.mark.parametrize("sz", range(10))
def test_a_buffer_takes_exactly_n_entries(sz: int) -> None:
    capacity = 512 << sz
    bench = Bench(sz=sz)
    bench.pe.write(SysReg.HDBSSPROD_EL2, capacity - 1)
    first, second = bench.map(IPA), bench.map(IPA + 0x1000)
    bench.ram.words[BUFFER + 8 * capacity] = 0xCA7
    assert completed(bench.pe.store(IPA)).appended[0].slot_pa == BUFFER + 8 * capacity - 8
    assert bench.index == capacity
    assert aborted(bench.pe.store(IPA + 0x1000)).refused
    assert bench.index == capacity
    assert bench.bits(first) & WRITE
    assert not bench.bits(second) & WRITE
    assert bench.ram.words[BUFFER + 8 * capacity] == 0xCA7


@pytest.mark.parametrize("sz", [0, 3])
def test_filling_from_the_start(sz: int) -> None:
    capacity = 512 << sz
    bench = Bench(sz=sz)
    for page in range(capacity + 1):
        bench.map(page << 12)
    for page in range(capacity):
        completed(bench.pe.store(page << 12))
    assert [bench.slot(i) for i in range(capacity)] == [i << 12 | 7 for i in range(capacity)]
    assert aborted(bench.pe.store(capacity << 12)).refused
    assert {pa for pa, _ in bench.ram.writes} == set(range(BUFFER, BUFFER + 8 * capacity, 8))


@pytest.mark.parametrize(
    ("index", "refused"), [(511, False), (512, True), (513, True), (0x7FFFF, True)]
)
def test_full_condition(index: int, refused: bool) -> None:
    bench = Bench()
    bench.pe.write(SysReg.HDBSSPROD_EL2, index)
    bench.map(IPA)
    assert isinstance(bench.pe.store(IPA), Aborted) == refused
    assert bench.index == index + (not refused)


@pytest.mark.parametrize("register", [SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2])
def test_access_by_exception_level(register: SysReg) -> None:
    bench = Bench()
    for el in (0, 1):
        with pytest.raises(Undefined):
            bench.pe.read(register, el)
        with pytest.raises(Undefined):
            bench.pe.write(register, 0, el)
    bench.pe.hdbssen = False
    with pytest.raises(TrappedToEl3):
        bench.pe.read(register)
    bench.pe.read(register, el=3)
    bench.pe.read(SysReg.VTCR_EL2)


def test_id_register_and_what_no_model_has() -> None:
    bench = Bench()
    assert bench.pe.read(SysReg.ID_AA64MMFR1_EL1, el=1) & 0xF == 4
    with pytest.raises(ValueError, match="read-only"):
        bench.pe.write(SysReg.ID_AA64MMFR1_EL1, 0)
    with pytest.raises(ValueError, match="not a register of the producer"):
        bench.pe.read(SysReg.ESR_EL2)


# --- section 6: the entry -----------------------------------------------------


@pytest.mark.parametrize(
    ("level", "entry"), [(3, 0x1_2345_6007), (2, 0x1_2340_0005), (1, 0x1_0000_0003)]
)
def test_entry_of_each_leaf_level(level: int, entry: int) -> None:
    bench = Bench()
    bench.map(IPA, CLEAN if level == 3 else CLEAN & ~2 | BLOCK, level)
    (append,) = completed(bench.pe.store(0x1_2345_6789)).appended
    assert append.entry == bench.slot(0) == entry
    assert (append.index, append.slot_pa) == (0, BUFFER)


def test_contiguous_changes_nothing_in_the_entry() -> None:
    bench = Bench()
    bench.map(IPA + 0x5000, CLEAN | 1 << 52)
    completed(bench.pe.store(IPA + 0x5000))
    assert bench.slot(0) == IPA + 0x5000 | 7


# --- section 7: dirty state ---------------------------------------------------


def test_dbm_0_faults_without_hdbssf_even_when_full() -> None:
    bench = Bench()
    bench.pe.write(SysReg.HDBSSPROD_EL2, 512)
    pa = bench.map(IPA, READ | AF | PAGE_DESC)
    outcome = aborted(bench.pe.store(IPA))
    assert not outcome.refused
    assert outcome.abort.kind is Kind.PERMISSION
    assert not outcome.abort.esr & 1 << 43
    assert bench.bits(pa) == READ | AF


def test_clean_without_read_permission_becomes_write_only() -> None:
    bench = Bench()
    pa = bench.map(IPA, DBM | AF | PAGE_DESC)
    completed(bench.pe.store(IPA))
    assert bench.bits(pa) == DBM | WRITE | AF
    assert aborted(bench.pe.access(IPA, Access.READ)).abort.kind is Kind.PERMISSION


def test_af_and_dirty_in_one_update() -> None:
    bench = Bench()
    pa = bench.map(IPA, CLEAN & ~AF)
    (append,) = completed(bench.pe.store(IPA)).appended
    assert bench.bits(pa) == DBM | WRITE | READ | AF
    assert append.after ^ append.before == WRITE | AF


def test_hd_off_faults_on_clean() -> None:
    bench = Bench(enables=HA | HDBSS)
    bench.map(IPA)
    assert not aborted(bench.pe.store(IPA)).refused


def test_a_descriptor_changed_under_the_access_is_used_anew() -> None:
    """The swap fails; the second walk sees read-only (R_SGJBL)."""
    bench = Bench()
    pa = bench.map(IPA)
    bench.ram.race[pa] = bench.ram.words[pa] & ~DBM
    outcome = aborted(bench.pe.store(IPA))
    assert not outcome.refused
    assert [append.cas_lost for append in outcome.appended] == [True]
    assert bench.index == 1


# --- section 8: append, full, refused -----------------------------------------


def test_what_never_appends() -> None:
    leaves = {
        "already dirty": CLEAN | WRITE,
        "writable, DBM 0": READ | WRITE | AF | PAGE_DESC,
    }
    for name, leaf in leaves.items():
        bench = Bench()
        bench.map(IPA, leaf)
        assert completed(bench.pe.store(IPA)).appended == (), name
        assert bench.index == 0
    bench = Bench()
    pa = bench.map(IPA, CLEAN & ~AF)
    assert completed(bench.pe.access(IPA, Access.READ)).appended == ()
    assert bench.bits(pa) == DBM | READ | AF
    assert completed(bench.pe.access(IPA, Access.FETCH)).appended == ()
    assert completed(bench.pe.access(IPA, Access.PROBE_WRITE)).appended == ()
    assert bench.bits(pa) == DBM | READ | AF
    assert bench.index == 0


def test_second_store_to_a_page_does_not_append() -> None:
    bench = Bench()
    bench.map(IPA)
    completed(bench.pe.store(IPA))
    assert completed(bench.pe.store(IPA + 8)).appended == ()
    assert bench.index == 1


def test_full_refuses_clean_stores_only_then_a_drain_lets_them_through() -> None:
    bench = Bench()
    bench.pe.write(SysReg.HDBSSPROD_EL2, 512)
    clean, dirty = bench.map(IPA), bench.map(IPA + 0x1000, CLEAN | WRITE)
    for page, access in ((0, Access.READ), (0, Access.FETCH), (1, Access.WRITE)):
        completed(bench.pe.access(IPA + page * 0x1000, access))
    outcome = aborted(bench.pe.store(IPA))
    assert outcome.refused
    assert outcome.abort.esr == 1 << 43 | 0x24 << 26 | 1 << 25 | 1 << 6 | 0x0F
    assert (bench.bits(clean), bench.bits(dirty)) == (DBM | READ | AF, DBM | WRITE | READ | AF)
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == 512
    bench.pe.write(SysReg.HDBSSPROD_EL2, 0)
    completed(bench.pe.store(IPA))
    assert (bench.index, bench.slot(0)) == (1, IPA | 7)


@pytest.mark.parametrize("fsc", [ProdFsc.EXTERNAL_ABORT, ProdFsc.GPF, 0b111111])
def test_fsc_written_by_software_refuses(fsc: int) -> None:
    bench = Bench()
    bench.pe.write(SysReg.HDBSSPROD_EL2, fsc << 26)
    bench.map(IPA)
    assert aborted(bench.pe.store(IPA)).refused
    assert bench.pe.read(SysReg.HDBSSPROD_EL2) == fsc << 26
    bench.pe.write(SysReg.HDBSSPROD_EL2, 0)
    completed(bench.pe.store(IPA))


@pytest.mark.parametrize(("level", "fsc"), [(3, 0x0F), (2, 0x0E), (1, 0x0D)])
def test_refusal_reports_the_level_of_the_leaf(level: int, fsc: int) -> None:
    bench = Bench()
    bench.pe.write(SysReg.HDBSSPROD_EL2, 512)
    bench.map(IPA, CLEAN if level == 3 else CLEAN & ~2 | BLOCK, level)
    assert aborted(bench.pe.store(IPA)).abort.esr & 0x3F == fsc


def test_unmapped_while_full_is_a_translation_fault() -> None:
    bench = Bench()
    bench.pe.write(SysReg.HDBSSPROD_EL2, 512)
    bench.map(IPA)
    outcome = aborted(bench.pe.store(IPA + 0x1000))
    assert (outcome.abort.kind, outcome.abort.level) == (Kind.TRANSLATION, 3)
    assert not outcome.abort.hdbssf
    assert outcome.leaf is None


def test_stage_1_walk_update_while_full() -> None:
    bench = Bench()
    bench.map(IPA)
    completed(bench.pe.access(IPA, Access.STAGE1_UPDATE))
    assert bench.slot(0) == IPA | 7
    bench.pe.write(SysReg.HDBSSPROD_EL2, 512)
    bench.map(IPA + 0x1000)
    outcome = aborted(bench.pe.access(IPA + 0x1000, Access.STAGE1_UPDATE))
    assert outcome.refused
    assert outcome.abort.s1ptw
    assert outcome.abort.hdbssf


def test_ha_0_is_an_access_flag_fault_first() -> None:
    bench = Bench(enables=0)
    bench.map(IPA, CLEAN & ~AF)
    assert aborted(bench.pe.store(IPA)).abort.kind is Kind.ACCESS_FLAG


def test_execute_never() -> None:
    bench = Bench()
    bench.map(IPA, CLEAN | 0b10 << 53)
    outcome = aborted(bench.pe.access(IPA, Access.FETCH))
    assert outcome.abort.instruction
    assert syndrome.EC.get(outcome.abort.esr) == 0x20
