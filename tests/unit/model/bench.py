# SPDX-License-Identifier: GPL-2.0-or-later
"""A PE with memory and tables, ready for stores."""

from qemu_model.arch.registers import SysReg
from qemu_model.model.choices import Choices
from qemu_model.model.pe import PE, Aborted, Completed, Outcome
from tests.unit.arch.tables import PAGE_DESC, Ram, map_leaf, vtcr

BUFFER = 0x8000_0000
BASE, POOL = 0x1_0000_0000, 0x1_0010_0000
HA, HD, HDBSS = 1 << 21, 1 << 22, 1 << 45
ON = HA | HD | HDBSS
DBM, WRITE, READ, AF = 1 << 51, 1 << 7, 1 << 6, 1 << 10
CLEAN = DBM | READ | AF | PAGE_DESC
IPA = 0x1_2345_6000


class Bench:
    """A PE with a 40-bit IPA space, 4 KB granule, start level 1."""

    def __init__(self, choices: Choices | None = None, sz: int = 0, enables: int = ON) -> None:
        self.ram = Ram()
        self.pe = PE(self.ram, choices)
        self.pe.write(SysReg.HDBSSBR_EL2, BUFFER | sz)
        self.pe.write(SysReg.VTCR_EL2, vtcr("4k", 40, 1) | enables)
        self.pe.write(SysReg.VTTBR_EL2, BASE)
        self.pe.write(SysReg.HCR_EL2, 1)
        self._pool = POOL

    def map(self, ipa: int, leaf: int = CLEAN, level: int = 3) -> int:
        """Enter a leaf and return the PA of its descriptor."""
        self._pool += 0x10_000
        output = 0x40_0000_0000 + (ipa & 0xC000_0000)
        return map_leaf(self.ram, "4k", 1, BASE, ipa, level, leaf | output, self._pool)

    @property
    def index(self) -> int:
        return self.pe.read(SysReg.HDBSSPROD_EL2) & 0x7FFFF

    def slot(self, index: int) -> int:
        return self.ram.words.get(BUFFER + 8 * index, 0)

    def bits(self, pa: int) -> int:
        """S2AP, AF and DBM of a descriptor."""
        return self.ram.words[pa] & (DBM | WRITE | READ | AF)


def completed(outcome: Outcome) -> Completed:
    assert isinstance(outcome, Completed), outcome
    return outcome


def aborted(outcome: Outcome) -> Aborted:
    assert isinstance(outcome, Aborted), outcome
    return outcome
