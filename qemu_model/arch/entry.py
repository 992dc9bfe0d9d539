# SPDX-License-Identifier: GPL-2.0-or-later
"""The HDBSS entry: 64 bits that name the range of one dirtied leaf (Table D8-93).

The rule id of the format, ~R_QWSGD, is inferred.  An entry names the range of the
descriptor itself, not that of a contiguous group (digest 6).
"""

from dataclasses import dataclass
from functools import cache

from qemu_model.arch.bits import Field, bit_range
from qemu_model.arch.stage2 import Granule

VALID = Field("valid", 0, 0)
TTWL = Field("TTWL", 3, 1)
NSIPA = Field("NSIPA", 11, 11)
IPA = Field("IPA", 55, 12)
RES0 = bit_range(63, 56) | bit_range(10, 4)

LEVEL_MIN, LEVEL_MAX = -4, 3


def level_to_ttwl(level: int) -> int:
    """Return the 3-bit two's complement code of a walk level -4..3.

    The manual says only "3-bit signed"; which codes are reserved is UNCONFIRMED,
    so every one of the eight is encoded here.  Raises ValueError outside them.
    """
    if not LEVEL_MIN <= level <= LEVEL_MAX:
        raise ValueError(f"level {level} has no TTWL code")
    return level & 0b111


def ttwl_to_level(ttwl: int) -> int:
    """Return the walk level -4..3 of a 3-bit code."""
    return (ttwl & 0b111 ^ 0b100) - 0b100


def encode(ipa: int, level: int, granule: Granule) -> int:
    """Return the valid entry for a leaf at ``level`` that translates ``ipa``."""
    mask, rest = _shape(level, granule)
    return ipa & mask | rest


@cache
def _shape(level: int, granule: Granule) -> tuple[int, int]:
    """The bits of the IPA that an entry has, and its other bits."""
    mask = -granule.leaf_size(level) & IPA.mask
    return mask, level_to_ttwl(level) << 1 | VALID.mask


@dataclass(frozen=True, slots=True)
class Entry:
    """A decoded entry; ``ipa`` is bits [55:12] as they are, not aligned again."""

    valid: bool
    level: int
    ipa: int
    nsipa: bool = False

    @classmethod
    def decode(cls, value: int) -> "Entry":
        """Decode 64 bits; RES0 bits are ignored."""
        return cls(
            valid=bool(value & VALID.mask),
            level=ttwl_to_level(TTWL.get(value)),
            ipa=value & IPA.mask,
            nsipa=bool(value & NSIPA.mask),
        )

    def encode(self) -> int:
        """Return the 64 bits; the inverse of ``decode`` except for RES0 bits."""
        value = self.ipa & IPA.mask | level_to_ttwl(self.level) << 1
        return value | (VALID.mask if self.valid else 0) | (NSIPA.mask if self.nsipa else 0)

    def dirty_range(self, granule: Granule) -> range:
        """Return the IPAs that this entry calls dirty (invariant I7).

        Raises ValueError for a level that the granule has no leaf size for.
        """
        if not 0 <= self.level <= LEVEL_MAX:
            raise ValueError(f"no leaf stands at level {self.level}")
        size = granule.leaf_size(self.level)
        first = self.ipa & -size
        return range(first, first + size)
