# SPDX-License-Identifier: GPL-2.0-or-later
"""The system registers that FEAT_HDBSS is made of: encodings, fields, RES0 masks.

Field positions are those of the Arm ARM register pages and of Linux'
``arch/arm64/tools/sysreg``.  A value of a register is a plain 64-bit ``int``
wherever speed matters; the frozen classes below give such a value its names.
"""

from dataclasses import dataclass
from enum import IntEnum

from qemu_model.arch.bits import Field, bit_range


def sys_reg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """Return the register's number as Linux' ``sys_reg()`` makes it."""
    return op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5


class SysReg(IntEnum):
    """The registers a trace can name, by Linux' ``sys_reg()`` number."""

    ID_AA64MMFR1_EL1 = sys_reg(3, 0, 0, 7, 1)
    HCR_EL2 = sys_reg(3, 4, 1, 1, 0)
    VTTBR_EL2 = sys_reg(3, 4, 2, 1, 0)
    VTCR_EL2 = sys_reg(3, 4, 2, 1, 2)
    HDBSSBR_EL2 = sys_reg(3, 4, 2, 3, 2)
    HDBSSPROD_EL2 = sys_reg(3, 4, 2, 3, 3)
    ESR_EL2 = sys_reg(3, 4, 5, 2, 0)


def mrs(register: SysReg, xt: int = 0) -> int:
    """Return the A64 instruction word of ``MRS X<xt>, <register>``."""
    return 0xD5200000 | register | xt


def msr(register: SysReg, xt: int = 0) -> int:
    """Return the A64 instruction word of ``MSR <register>, X<xt>``."""
    return 0xD5000000 | register | xt


# --- ID_AA64MMFR1_EL1 ---------------------------------------------------------

MMFR1_HAFDBS = Field("HAFDBS", 3, 0)


class HAFDBS(IntEnum):
    """ID_AA64MMFR1_EL1.HAFDBS: each value includes those below it (digest 1)."""

    NONE = 0
    AF = 1
    DBM = 2
    HAFT = 3
    HDBSS = 4


# --- HCR_EL2 ------------------------------------------------------------------

HCR_VM = Field("VM", 0, 0)
HCR_TSC = Field("TSC", 19, 19)
HCR_TGE = Field("TGE", 27, 27)
HCR_E2H = Field("E2H", 34, 34)


def stage2_in_use(hcr: int) -> bool:
    """Say whether EL1&0 is translated by stage 2: HCR_EL2.{VM,TGE} == {1,0}."""
    return hcr & (HCR_VM.mask | HCR_TGE.mask) == HCR_VM.mask


# --- VTCR_EL2 -----------------------------------------------------------------

VTCR_T0SZ = Field("T0SZ", 5, 0)
VTCR_SL0 = Field("SL0", 7, 6)
VTCR_TG0 = Field("TG0", 15, 14)
VTCR_PS = Field("PS", 18, 16)
VTCR_HA = Field("HA", 21, 21)
VTCR_HD = Field("HD", 22, 22)
VTCR_DS = Field("DS", 32, 32)
VTCR_SL2 = Field("SL2", 33, 33)
VTCR_S2PIE = Field("S2PIE", 36, 36)
VTCR_S2POE = Field("S2POE", 37, 37)
VTCR_D128 = Field("D128", 38, 38)
VTCR_HAFT = Field("HAFT", 44, 44)
VTCR_HDBSS = Field("HDBSS", 45, 45)

# Bit 31 is RES1.  The RES0 bits of VTCR_EL2 are plain storage here: QEMU keeps
# them as written, and a RES0 bit of a read/write register may be implemented so.
VTCR_RES0 = bit_range(63, 46) | bit_range(43, 42) | bit_range(39, 39) | bit_range(24, 23) | 1 << 20

_VTCR_HA_HD_HDBSS = VTCR_HA.mask | VTCR_HD.mask | VTCR_HDBSS.mask
_VTCR_HA_HD = VTCR_HA.mask | VTCR_HD.mask


def hd_enabled(vtcr: int) -> bool:
    """Return the effective VTCR_EL2.HD, which is 0 unless HA is 1 (digest 2)."""
    return vtcr & _VTCR_HA_HD == _VTCR_HA_HD


def hdbss_enabled(vtcr: int) -> bool:
    """Return the effective VTCR_EL2.HDBSS of a machine without EL3 (digest 2).

    It is 0 unless {HA,HD} == {1,1}.  Whether it matters at all is a question of
    ``stage2_in_use``.
    """
    return vtcr & _VTCR_HA_HD_HDBSS == _VTCR_HA_HD_HDBSS


# --- HDBSSBR_EL2 --------------------------------------------------------------

HDBSSBR_SZ = Field("SZ", 3, 0)
HDBSSBR_BADDR = Field("BADDR", 55, 12)
HDBSSBR_RES0 = bit_range(63, 56) | bit_range(11, 4)
SZ_MAX = 9
ENTRY_BYTES = 8


def sz_reserved(hdbssbr: int) -> bool:
    """Say whether SZ is one of the reserved values 10..15."""
    return hdbssbr & HDBSSBR_SZ.mask > SZ_MAX


def hdbss_capacity(hdbssbr: int) -> int:
    """Return the number of entries, 2^(SZ+12)/8 (I_JRDPM, R_BWVKS).

    For a reserved SZ the formula is simply continued; what hardware does there
    is UNCONFIRMED, so ask ``sz_reserved`` first.
    """
    return 512 << (hdbssbr & HDBSSBR_SZ.mask)


def hdbss_base(hdbssbr: int) -> int:
    """Return the physical address of slot 0.

    The base is aligned to the size of the buffer (I_SXBYL): bits [SZ+11:12] of
    BADDR are RES0 and take no part.  That set ones are ignored rather than used
    is UNCONFIRMED; it is the permissive reading.
    """
    return hdbssbr & HDBSSBR_BADDR.mask & -(4096 << (hdbssbr & HDBSSBR_SZ.mask))


def hdbss_bytes(hdbssbr: int) -> range:
    """Return the physical addresses of the whole buffer."""
    base = hdbss_base(hdbssbr)
    return range(base, base + ENTRY_BYTES * hdbss_capacity(hdbssbr))


def hdbss_slot(base: int, index: int) -> int:
    """Return the physical address of slot ``index`` of the buffer at ``base``."""
    return base + ENTRY_BYTES * index


@dataclass(frozen=True, slots=True)
class Hdbssbr:
    """A value of HDBSSBR_EL2; RES0 bits are gone."""

    value: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value & (HDBSSBR_BADDR.mask | HDBSSBR_SZ.mask))

    @property
    def sz(self) -> int:
        """SZ: the buffer has 4 KB << SZ bytes."""
        return HDBSSBR_SZ.get(self.value)

    @property
    def reserved(self) -> bool:
        """True for SZ 10..15."""
        return sz_reserved(self.value)

    @property
    def aligned(self) -> bool:
        """True when BADDR is a multiple of the buffer's size, as I_SXBYL wants."""
        return self.base == self.value & HDBSSBR_BADDR.mask

    @property
    def base(self) -> int:
        """Physical address of slot 0."""
        return hdbss_base(self.value)

    @property
    def capacity(self) -> int:
        """Number of entries."""
        return hdbss_capacity(self.value)

    def slot(self, index: int) -> int:
        """Return the physical address of slot ``index``."""
        return hdbss_slot(self.base, index)


# --- HDBSSPROD_EL2 ------------------------------------------------------------

HDBSSPROD_INDEX = Field("INDEX", 18, 0)
HDBSSPROD_FSC = Field("FSC", 31, 26)
HDBSSPROD_RES0 = bit_range(63, 32) | bit_range(25, 19)


class ProdFsc(IntEnum):
    """HDBSSPROD_EL2.FSC; every other value is reserved (digest 4)."""

    NONE = 0b000000
    EXTERNAL_ABORT = 0b010000
    GPF = 0b101000


@dataclass(frozen=True, slots=True)
class Hdbssprod:
    """A value of HDBSSPROD_EL2; RES0 bits are gone."""

    value: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value & (HDBSSPROD_FSC.mask | HDBSSPROD_INDEX.mask))

    @classmethod
    def of(cls, index: int, fsc: int = ProdFsc.NONE) -> "Hdbssprod":
        """Compose a value from its two fields."""
        return cls(HDBSSPROD_FSC.put(HDBSSPROD_INDEX.put(0, index), fsc))

    @property
    def index(self) -> int:
        """Number of the slot that is written next."""
        return HDBSSPROD_INDEX.get(self.value)

    @property
    def fsc(self) -> int:
        """Fault status of HDBSS writes; sticky until software writes 0."""
        return HDBSSPROD_FSC.get(self.value)


# --- what a write leaves behind -----------------------------------------------

_KEPT = {
    SysReg.HDBSSBR_EL2: HDBSSBR_BADDR.mask | HDBSSBR_SZ.mask,
    SysReg.HDBSSPROD_EL2: HDBSSPROD_FSC.mask | HDBSSPROD_INDEX.mask,
    SysReg.VTCR_EL2: bit_range(63, 0),
    SysReg.VTTBR_EL2: bit_range(63, 0),
    SysReg.HCR_EL2: bit_range(63, 0),
}


def kept_by_write(register: int) -> int | None:
    """Return the mask of bits that an MSR stores, or None for a read-only register."""
    return _KEPT.get(SysReg(register))
