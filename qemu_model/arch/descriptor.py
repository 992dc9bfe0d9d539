# SPDX-License-Identifier: GPL-2.0-or-later
"""A stage 2 leaf descriptor with Direct permissions (VTCR_EL2.S2PIE == 0).

Indirect permissions need FEAT_S2PIE, which this bench takes as absent; bit 7
would be the Dirty field there and DBM would not exist.
"""

from enum import Enum

from qemu_model.arch.bits import Field

S2AP_READ = Field("S2AP[0]", 6, 6)
S2AP_WRITE = Field("S2AP[1]", 7, 7)
AF = Field("AF", 10, 10)
DBM = Field("DBM", 51, 51)
CONTIGUOUS = Field("Contiguous", 52, 52)
XN = Field("XN", 54, 53)


class DirtyState(Enum):
    """What a leaf is to a write, with VTCR_EL2.HD in effect (digest 7)."""

    CLEAN = "writable-clean"
    DIRTY = "writable-dirty"
    OTHER = "neither; hardware does not manage its dirty state"


def dirty_state(descriptor: int) -> DirtyState:
    """Return the dirty state: DBM=1 makes S2AP[1] the dirty bit (R_XZFQH, R_BRFGY, R_PZFQC)."""
    if not descriptor & DBM.mask:
        return DirtyState.OTHER
    return DirtyState.DIRTY if descriptor & S2AP_WRITE.mask else DirtyState.CLEAN


_DIRTY_BITS = DBM.mask | S2AP_WRITE.mask


def writable_clean(descriptor: int) -> bool:
    """Say whether the leaf is writable-clean; ``dirty_state`` in one comparison."""
    return descriptor & _DIRTY_BITS == DBM.mask


def dirtied(descriptor: int) -> int:
    """Return the descriptor after its dirty update.

    The same atomic update sets AF: dirty with AF=0 is forbidden (R_PQJJR, R_PRHKD).
    """
    return descriptor | S2AP_WRITE.mask | AF.mask


def readable(descriptor: int) -> bool:
    """Say whether S2AP grants reads (R_HBFHL)."""
    return bool(descriptor & S2AP_READ.mask)


def writable(descriptor: int) -> bool:
    """Say whether S2AP grants writes without any update (R_HBFHL)."""
    return bool(descriptor & S2AP_WRITE.mask)


def executable(descriptor: int, el: int) -> bool:
    """Say whether XN[1:0] grants instruction fetches at EL0 or EL1 (FEAT_XNX)."""
    return XN.get(descriptor) in ((0b00, 0b01) if el == 0 else (0b00, 0b11))
