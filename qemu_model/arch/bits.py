# SPDX-License-Identifier: GPL-2.0-or-later
"""Bit fields, written as the manual writes them: ``[high:low]``."""

from dataclasses import dataclass, field


def bit_range(high: int, low: int) -> int:
    """Return the mask of bits [high:low]."""
    return (1 << high + 1) - (1 << low)


@dataclass(frozen=True, slots=True)
class Field:
    """A named field [high:low] of a 64-bit value."""

    name: str
    high: int
    low: int
    mask: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mask", bit_range(self.high, self.low))

    def get(self, value: int) -> int:
        """Return the field of ``value`` as an unsigned number."""
        return (value & self.mask) >> self.low

    def put(self, value: int, content: int) -> int:
        """Return ``value`` with the field set; raises ValueError if it does not fit."""
        if content < 0 or content > self.mask >> self.low:
            raise ValueError(f"{self.name}[{self.high}:{self.low}] cannot hold {content:#x}")
        return value & ~self.mask | content << self.low
