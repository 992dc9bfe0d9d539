# SPDX-License-Identifier: GPL-2.0-or-later
"""VTCR_EL2 as a PE has cached it, and what that lets it do."""

import pytest

from qemu_model.arch.registers import VTCR_HA, VTCR_HD, VTCR_HDBSS, SysReg
from qemu_model.model.choices import Caching, Choices
from qemu_model.model.pe import PE, Aborted, Completed
from qemu_model.model.tlb import SLOTS, Tlb
from tests.unit.arch.tables import Ram, map_leaf, vtcr

OFF = vtcr("4k", 40, 1) | VTCR_HA.mask
DIRTY = OFF | VTCR_HD.mask
ON = DIRTY | VTCR_HDBSS.mask
TABLES, POOL, BUFFER, IPA = 0x1_0000_0000, 0x1_0010_0000, 0x8000_0000, 0x1234_5000
CLEAN = 0x40_0000_0000 | 1 << 51 | 1 << 10 | 1 << 6 | 0b11
DIRTIED = 1 << 7


def test_the_first_value_counts_until_a_tlbi() -> None:
    tlb = Tlb()
    assert tlb.vtcr(1, OFF) == OFF
    assert tlb.vtcr(1, ON) == OFF
    assert tlb.vtcr(2, ON) == ON
    tlb.invalidate(2)
    tlb.invalidate(3)
    assert tlb.vtcr(1, ON) == OFF
    tlb.invalidate(1)
    assert tlb.vtcr(1, ON) == ON
    tlb.invalidate(None)
    assert [tlb.vtcr(vmid, OFF) for vmid in (1, 2)] == [OFF, OFF]


def test_other_bits_are_not_cached() -> None:
    tlb = Tlb()
    tlb.vtcr(1, OFF)
    assert tlb.vtcr(1, ON | 1 << 60) == OFF | 1 << 60


def test_two_vmids_of_one_slot() -> None:
    tlb = Tlb()
    tlb.vtcr(1, OFF)
    assert tlb.vtcr(1 + SLOTS, ON) == ON
    assert tlb.vtcr(1, ON) == ON
    tlb.invalidate(1 + SLOTS)  # it is not there any more
    assert tlb.vtcr(1, OFF) == ON


class Guest:
    """A PE that has run a guest with one VTCR_EL2, and enters it with another."""

    def __init__(self, before: int, now: int, caching: Caching = Caching.LAZY) -> None:
        self.ram = Ram()
        self.leaf = map_leaf(self.ram, "4k", 1, TABLES, IPA, 3, CLEAN, POOL)
        self.pe = PE(self.ram, Choices(caching=caching))
        self.pe.hcr, self.pe.vttbr = 1, TABLES | 5 << 48
        self.pe.write(SysReg.HDBSSBR_EL2, BUFFER)
        self.enter(before)
        self.enter(now)

    def enter(self, value: int) -> None:
        self.pe.write(SysReg.VTCR_EL2, value)
        self.pe.enter_guest()

    def store(self) -> tuple[bool, int, bool]:
        """Whether it completed, INDEX, and whether the descriptor is dirty."""
        done = isinstance(self.pe.store(IPA), Completed)
        return done, self.pe.producer.index, bool(self.ram.words[self.leaf] & DIRTIED)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (OFF, ON, (False, 0, False)),
        (DIRTY, ON, (True, 0, True)),  # and nobody is told
        (ON, OFF, (True, 1, True)),
        (ON, DIRTY, (True, 1, True)),
        (DIRTY, OFF, (True, 0, True)),
        (OFF, DIRTY, (False, 0, False)),
        (ON, ON, (True, 1, True)),
    ],
)
def test_a_store_through_an_old_translation(
    before: int, now: int, expected: tuple[bool, int, bool]
) -> None:
    assert Guest(before, now).store() == expected


@pytest.mark.parametrize("vmid", [5, None])
def test_a_store_after_a_tlbi(vmid: int | None) -> None:
    guest = Guest(DIRTY, ON)
    guest.pe.tlb_invalidate(vmid)
    guest.pe.translate_anew()
    assert guest.store() == (True, 1, True)


def test_a_tlbi_of_another_vmid_changes_nothing() -> None:
    guest = Guest(DIRTY, ON)
    guest.pe.tlb_invalidate(6)
    guest.pe.translate_anew()
    assert guest.store() == (True, 0, True)


def test_at_once_is_at_once() -> None:
    assert Guest(DIRTY, ON, Caching.AT_ONCE).store() == (True, 1, True)


def test_the_full_buffer_of_an_old_translation_refuses() -> None:
    guest = Guest(ON, OFF)
    guest.pe.write(SysReg.HDBSSPROD_EL2, 512)
    outcome = guest.pe.store(IPA)
    assert isinstance(outcome, Aborted) and outcome.refused
