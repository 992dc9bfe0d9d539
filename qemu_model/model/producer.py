# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of one PE that decide where a dirtied page is recorded.

``Producer`` is the part of the PE that the trace shows completely: register
accesses, the effective enable, the full condition and what an append does to
INDEX.  ``pe.PE`` acts with it, ``checkers.mirror`` replays a trace against it; so
these rules exist once.  Derived values are worked out when a register is written.
"""

from functools import lru_cache

from qemu_model.arch import entry, registers
from qemu_model.arch.registers import (
    HAFDBS,
    HDBSSPROD_FSC,
    HDBSSPROD_INDEX,
    MMFR1_HAFDBS,
    ProdFsc,
    SysReg,
    kept_by_write,
)
from qemu_model.arch.stage2 import Reason, WalkParams
from qemu_model.arch.stage2 import params as stage2_params

# Linux rewrites a handful of VTCR_EL2 values over and over; decode each once.
walk_params = lru_cache(maxsize=64)(stage2_params)

HDBSSBR, HDBSSPROD, VTCR = SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2, SysReg.VTCR_EL2


class Producer:
    """HDBSSBR_EL2, HDBSSPROD_EL2 and VTCR_EL2 of a PE, and what follows from them.

    After a Warm reset the three are UNKNOWN (digest 2): the values are the caller's.
    ``fsc`` and ``index`` are the fields of HDBSSPROD_EL2.
    """

    __slots__ = (
        "base",
        "capacity",
        "enabled",
        "fsc",
        "hd",
        "hdbssbr",
        "index",
        "sz_reserved",
        "vtcr",
        "walk",
    )

    hdbssbr: int
    vtcr: int
    index: int
    fsc: int
    enabled: bool
    hd: bool
    base: int
    capacity: int
    sz_reserved: bool
    walk: WalkParams | Reason

    def __init__(self, hdbssbr: int = 0, hdbssprod: int = 0, vtcr: int = 0) -> None:
        self.write(HDBSSBR, hdbssbr)
        self.write(HDBSSPROD, hdbssprod)
        self.write(VTCR, vtcr)

    @property
    def hdbssprod(self) -> int:
        """HDBSSPROD_EL2 as hardware holds it now."""
        return self.fsc << HDBSSPROD_FSC.low | self.index

    def write(self, register: int, value: int) -> int:
        """Do ``MSR register, value`` at EL2 and return what the register then holds.

        RES0 bits are dropped, those of VTCR_EL2 kept as written (``VTCR_RES0``).
        Writing while HDBSS is enabled has no documented restriction (UNCONFIRMED): it
        takes effect at once.  Raises ValueError for a register that is not held here.
        """
        kept = kept_by_write(register)
        if kept is None:
            raise ValueError(f"{SysReg(register).name} is read-only")
        value &= kept
        if register == HDBSSPROD:
            self.index = value & HDBSSPROD_INDEX.mask
            self.fsc = value >> HDBSSPROD_FSC.low
        elif register == HDBSSBR:
            self.hdbssbr = value
            self.base = registers.hdbss_base(value)
            self.capacity = registers.hdbss_capacity(value)
            self.sz_reserved = registers.sz_reserved(value)
        elif register == VTCR:
            self.vtcr = value
            self.enabled = registers.hdbss_enabled(value)
            self.hd = registers.hd_enabled(value)
            self.walk = walk_params(value)
        else:
            raise ValueError(f"{SysReg(register).name} is not a register of the producer")
        return value

    def obey(self, vtcr: int) -> None:
        """Let this value of VTCR_EL2 be in effect; the register holds what it held.

        Until VTCR_EL2 is written: then that is.
        """
        self.enabled = registers.hdbss_enabled(vtcr)
        self.hd = registers.hd_enabled(vtcr)

    def read(self, register: int) -> int:
        """Do ``MRS register`` at EL2; of ID_AA64MMFR1_EL1 only HAFDBS is given.

        INDEX is the newest value: a late one is a matter of ``heldback``.
        Raises ValueError for a register that is not held here.
        """
        if register == HDBSSPROD:
            return self.hdbssprod
        if register == HDBSSBR:
            return self.hdbssbr
        if register == VTCR:
            return self.vtcr
        if register == SysReg.ID_AA64MMFR1_EL1:
            return MMFR1_HAFDBS.put(0, HAFDBS.HDBSS)
        raise ValueError(f"{SysReg(register).name} is not a register of the producer")

    def can_append(self) -> bool:
        """Say whether an enabled HDBSS takes one more entry (R_STJMN).

        It is full at INDEX >= 2^(SZ+12)/8 (R_RXCMY), and stopped while FSC is not 0.
        """
        return not self.fsc and self.index < self.capacity

    def slot(self) -> int:
        """Return the physical address of the slot that INDEX names."""
        return registers.hdbss_slot(self.base, self.index)

    def entry_for(self, ipa: int, level: int) -> int:
        """Return the entry of a leaf at ``level`` under the VTCR_EL2 of now (Table D8-93).

        Raises ValueError while VTCR_EL2 describes no walk.
        """
        walk = self.walk
        if isinstance(walk, Reason):
            raise ValueError(walk.value)
        return entry.encode(ipa, level, walk.granule)

    def appended(self) -> None:
        """Count an entry that was written: INDEX + 1 (R_PCTTC)."""
        self.index += 1

    def taken_back(self) -> None:
        """Uncount the entry written last (choices C9, C13)."""
        self.index -= 1

    def fail(self, fsc: ProdFsc) -> None:
        """Report a fault of an HDBSS write in FSC form; INDEX stays (digest 9a, 9b)."""
        self.fsc = int(fsc)
