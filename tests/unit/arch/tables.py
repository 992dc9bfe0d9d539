# SPDX-License-Identifier: GPL-2.0-or-later
"""A memory with hand-made stage 2 tables, and VTCR_EL2 values.

The levels' bit positions are written out here as the manual's figures have them, so
that the walker is not tested with its own arithmetic.
"""

from dataclasses import dataclass, field

from qemu_model.arch.registers import ProdFsc

TG0 = {"4k": 0b00, "16k": 0b10, "64k": 0b01}
PAGE = {"4k": 1 << 12, "16k": 1 << 14, "64k": 1 << 16}
LSB = {
    "4k": {-1: 48, 0: 39, 1: 30, 2: 21, 3: 12},
    "16k": {0: 47, 1: 36, 2: 25, 3: 14},
    "64k": {1: 42, 2: 29, 3: 16},
}
SL = {  # start level: (SL2, SL0)
    "4k": {-1: (1, 0), 0: (0, 2), 1: (0, 1), 2: (0, 0), 3: (0, 3)},
    "16k": {0: (0, 3), 1: (0, 2), 2: (0, 1), 3: (0, 0)},
    "64k": {1: (0, 2), 2: (0, 1), 3: (0, 0)},
}
VALID, TABLE, PAGE_DESC, BLOCK = 1, 3, 3, 1


def vtcr(granule: str, ipa_bits: int, start: int, ps: int = 6, ds: int = 0) -> int:
    """Compose VTCR_EL2 with RES1 and without any hardware management."""
    sl2, sl0 = SL[granule][start]
    low = 64 - ipa_bits | sl0 << 6 | TG0[granule] << 14 | ps << 16 | 1 << 31
    return low | ds << 32 | sl2 << 33


@dataclass
class Ram:
    """Sparse memory: absent words read as zero, ranges in ``holes`` do not exist."""

    words: dict[int, int] = field(default_factory=dict)
    holes: list[range] = field(default_factory=list)
    write_fault: dict[int, ProdFsc] = field(default_factory=dict)
    """PAs whose writes fail."""
    race: dict[int, int] = field(default_factory=dict)
    """Descriptors that another agent changes to the value just before the next swap."""
    swap_aborts: set[int] = field(default_factory=set)
    writes: list[tuple[int, int]] = field(default_factory=list)

    def read64(self, pa: int) -> int | None:
        assert pa % 8 == 0
        return None if self._hole(pa) else self.words.get(pa, 0)

    def write64(self, pa: int, value: int) -> ProdFsc:
        assert pa % 8 == 0
        if self._hole(pa):
            return ProdFsc.EXTERNAL_ABORT
        fault = self.write_fault.get(pa, ProdFsc.NONE)
        if not fault:
            self.words[pa] = value
            self.writes.append((pa, value))
        return fault

    def compare_and_swap64(self, pa: int, expected: int, new: int) -> int | None:
        if pa in self.swap_aborts or self._hole(pa):
            return None
        if pa in self.race:
            self.words[pa] = self.race.pop(pa)
        found = self.words.get(pa, 0)
        if found == expected:
            self.words[pa] = new
        return found

    def _hole(self, pa: int) -> bool:
        return any(pa in hole for hole in self.holes)


def map_leaf(
    ram: Ram, granule: str, start: int, base: int, ipa: int, level: int, leaf: int, pool: int
) -> int:
    """Enter ``leaf`` for ``ipa``; tables come from ``pool`` upwards.  Returns its PA.

    Table addresses must lie below 2^48.  Tables already there are used.
    """
    table, top = base, 64
    for here in range(start, level):
        pa = table + (ipa % (1 << top) >> LSB[granule][here]) * 8
        if ram.words.get(pa, 0) & 3 == TABLE:
            table = ram.words[pa] & 0xFFFF_FFFF_FFFF & -PAGE[granule]
        else:
            ram.words[pa] = pool | TABLE
            table, pool = pool, pool + PAGE[granule]
        top = LSB[granule][here]
    pa = table + (ipa % (1 << top) >> LSB[granule][level]) * 8
    ram.words[pa] = leaf
    return pa
