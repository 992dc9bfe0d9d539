# SPDX-License-Identifier: GPL-2.0-or-later
"""What the interceptor does where PEs make entries visible late, or cache VTCR_EL2."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_model.model.choices import Caching, Choices, Visibility
from qemu_model.trace import BARRIER_CONTEXT, BARRIER_DSB, Kind
from tests.unit.gdbstub.rig import (
    BUFFER,
    DSB,
    ENTER,
    FAULT,
    IPA,
    IRQ,
    ISB,
    MRS_PROD,
    NO_TLBI,
    PATCHED,
    SYNC,
    TABLES,
    TLBI,
    Rig,
)

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


@pytest.mark.parametrize("cpsr", [0x3C5, 0x3C0])
def test_a_tlbi_below_el2_is_none(lazy: Rig, cpsr: int) -> None:
    assert lazy.stop(TLBI, cpsr=cpsr) == [("go", TLBI)]
    assert lazy.records(Kind.TLBI) == []


def test_where_the_kernel_has_no_tlbi_nothing_is_forgotten(lazy: Rig) -> None:
    assert lazy.stop(NO_TLBI) == [("go", NO_TLBI)]
    assert lazy.records(Kind.TLBI) == []


def test_nobody_stops_at_a_tlbi_without_need(rig: Rig) -> None:
    assert not rig.stub.enabled.keys() & {TLBI, NO_TLBI}
