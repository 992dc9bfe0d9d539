# SPDX-License-Identifier: GPL-2.0-or-later
"""The stage 2 translation table walk of VMSAv8-64 (Arm ARM D8.2, D8.3).

``walk`` finds the leaf descriptor of an IPA; it looks at nothing that follows
the walk (access flag, permissions, dirty state: ``stage2_leaf``).  It follows
the published pseudocode, whose function names stand in the docstrings.

The PE is QEMU's ``max``: PARange 52 bits (FEAT_LPA), all three granules,
FEAT_LPA2, FEAT_TTST.  128-bit descriptors and Indirect permissions are not modelled:
VTCR_EL2.{D128,S2PIE} other than {0,0} gives a reason of its own and no leaf.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum

from qemu_model.arch.bits import bit_range
from qemu_model.arch.registers import (
    VTCR_D128,
    VTCR_DS,
    VTCR_PS,
    VTCR_S2PIE,
    VTCR_SL0,
    VTCR_SL2,
    VTCR_T0SZ,
    VTCR_TG0,
)

PA_SIZE = 52
FINAL_LEVEL = 3
DESCRIPTOR_BYTES = 8
CONCATENATION_BITS = 4

Read64 = Callable[[int], int | None]


class Granule(IntEnum):
    """A translation granule; the value is log2 of its size in bytes."""

    KB4 = 12
    KB16 = 14
    KB64 = 16

    @property
    def stride(self) -> int:
        """Bits of the input address that one table resolves."""
        return int(self) - 3

    def index_lsb(self, level: int) -> int:
        """Return the lowest input address bit that ``level`` resolves."""
        return int(self) + (FINAL_LEVEL - level) * self.stride

    def leaf_size(self, level: int) -> int:
        """Return the bytes that a leaf at ``level`` maps."""
        return 1 << self.index_lsb(level)


_TG0 = {0b00: Granule.KB4, 0b01: Granule.KB64, 0b10: Granule.KB16}
_PS_BITS = (32, 36, 40, 42, 44, 48, 52, 56)
_START_LEVEL: dict[Granule, dict[int, int]] = {
    # key: SL2:SL0.  What is not listed is reserved (AArch64.S2InvalidSL).
    Granule.KB4: {0b000: 2, 0b001: 1, 0b010: 0, 0b011: 3, 0b100: -1},
    Granule.KB16: {0b00: 3, 0b01: 2, 0b10: 1, 0b11: 0},
    Granule.KB64: {0b00: 3, 0b01: 2, 0b10: 1},
}
_BLOCK_LEVELS = {
    # (granule, DS): levels at which a block is allowed (AArch64.BlockDescSupported).
    (Granule.KB4, False): frozenset({1, 2}),
    (Granule.KB4, True): frozenset({0, 1, 2}),
    (Granule.KB16, False): frozenset({2}),
    (Granule.KB16, True): frozenset({1, 2}),
    (Granule.KB64, False): frozenset({1, 2}),  # level 1 because PARange is 52
}


class Fault(Enum):
    """The architectural fault type of a failed walk."""

    TRANSLATION = "Translation fault"
    ADDRESS_SIZE = "Address size fault"
    EXTERNAL_ABORT = "synchronous External abort on translation table walk"


class Reason(Enum):
    """Why a walk found no leaf; the value says which rule and which fault."""

    NOT_MODELLED = "VTCR_EL2.D128 or S2PIE is set; neither is modelled"
    TG0_RESERVED = "VTCR_EL2.TG0 is 0b11: the granule is IMPLEMENTATION DEFINED, none chosen here"
    T0SZ_RANGE = "VTCR_EL2.T0SZ outside its limits (AArch64.S2MinTxSZ, AArch64.MaxTxSZ)"
    SL_RESERVED = "reserved VTCR_EL2.{SL2,SL0} for this granule (AArch64.S2InvalidSL)"
    SL_INCONSISTENT = "start level does not fit T0SZ (AArch64.S2InconsistentSL)"
    IPA_RANGE = "IPA larger than 64-T0SZ bits (AArch64.IPAIsOutOfRange)"
    BASE_RANGE = "VTTBR_EL2.BADDR exceeds the output size of VTCR_EL2.PS (AArch64.OAOutOfRange)"
    OUTPUT_RANGE = "descriptor address exceeds the output size of VTCR_EL2.PS"
    INVALID = "invalid or reserved descriptor (bits [1:0], AArch64.DecodeDescriptorType)"
    TABLE_OUTSIDE_MEMORY = "the table is not in memory"

    @property
    def fault(self) -> Fault:
        """The fault this reason is reported as."""
        if self in (Reason.BASE_RANGE, Reason.OUTPUT_RANGE):
            return Fault.ADDRESS_SIZE
        if self is Reason.TABLE_OUTSIDE_MEMORY:
            return Fault.EXTERNAL_ABORT
        return Fault.TRANSLATION


@dataclass(frozen=True, slots=True)
class Step:
    """One table lookup: its level, where the descriptor was, what it was."""

    level: int
    descriptor_pa: int
    descriptor: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A page or block descriptor that translates an IPA.

    ``ipa`` is the first IPA of the leaf, ``size`` its bytes, ``output`` the PA of
    the leaf's first byte; ``path`` has every lookup, the leaf's own last.
    """

    ipa: int
    level: int
    size: int
    descriptor_pa: int
    descriptor: int
    output: int
    path: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class WalkFault:
    """A walk that ended without a leaf.

    ``level`` is the level that the syndrome reports.  ``pa`` is the address of
    the table or descriptor concerned, or None when VTCR_EL2 or the IPA is to blame.
    """

    reason: Reason
    level: int
    pa: int | None
    path: tuple[Step, ...] = ()

    @property
    def fault(self) -> Fault:
        """The architectural fault type."""
        return self.reason.fault


@dataclass(frozen=True, slots=True)
class WalkParams:
    """What VTCR_EL2 says about the walk, checked (AArch64.GetS2TTWParams)."""

    granule: Granule
    ds: bool
    ia_size: int
    oa_size: int
    start_level: int
    block_levels: frozenset[int]

    @property
    def table_bits(self) -> int:
        """log2 of the bytes of the initial table, concatenation included."""
        bits = self.ia_size - self.granule.index_lsb(self.start_level) + 3
        # A 52-bit base has its bits [51:48] in VTTBR_EL2[5:2]: 64 bytes at least.
        return max(bits, 6) if self.oa_size == 52 else bits

    def is_leaf(self, descriptor: int, level: int) -> bool:
        """Say whether a descriptor is a page or an allowed block at this level."""
        kind = descriptor & 0b11
        if level == FINAL_LEVEL:
            return kind == 0b11
        return kind == 0b01 and level in self.block_levels

    def output_address(self, descriptor: int, low: int) -> int:
        """Return the address in a descriptor, of which bits below ``low`` are zero.

        64 KB granule: OA[51:48] is descriptor[15:12].  DS=1: OA[49:48] is in place
        and OA[51:50] is descriptor[9:8].  Else the address ends at bit 47.
        (AArch64.NextTableBase, AArch64.LeafBase)
        """
        if self.ds:
            return descriptor & bit_range(49, low) | (descriptor >> 8 & 0b11) << 50
        address = descriptor & bit_range(47, low)
        if self.granule is Granule.KB64:
            address |= (descriptor >> 12 & 0b1111) << 48
        return address

    def base(self, vttbr: int) -> int:
        """Return the PA of the initial table (AArch64.S2TTBaseAddress)."""
        address = vttbr & bit_range(47, 1)
        if self.oa_size == 52:
            address |= (vttbr >> 2 & 0b1111) << 48
        return address & -(1 << self.table_bits)


def params(vtcr: int) -> WalkParams | Reason:
    """Decode and check VTCR_EL2; the Reason says which rule it breaks.

    Every such value gives a level 0 Translation fault on any access.  That T0SZ
    out of range faults is mandatory below the minimum with FEAT_LVA and the
    choice of QEMU above the maximum.
    """
    if vtcr & (VTCR_D128.mask | VTCR_S2PIE.mask):
        return Reason.NOT_MODELLED
    granule = _TG0.get(VTCR_TG0.get(vtcr))
    if granule is None:
        return Reason.TG0_RESERVED
    # DS is RES0 for the 64 KB granule, SL2 unless it is 4 KB with DS=1.
    ds = bool(vtcr & VTCR_DS.mask) and granule is not Granule.KB64
    t0sz = VTCR_T0SZ.get(vtcr)
    large = ds or granule is Granule.KB64
    if not 64 - (PA_SIZE if large else 48) <= t0sz <= (47 if granule is Granule.KB64 else 48):
        return Reason.T0SZ_RANGE
    sl = VTCR_SL0.get(vtcr)
    if granule is Granule.KB4 and ds:
        sl |= VTCR_SL2.get(vtcr) << 2
    start_level = _START_LEVEL[granule].get(sl)
    # Level 0 of the 16 KB granule exists only for the larger input of LPA2.
    if start_level is None or (granule is Granule.KB16 and start_level == 0 and not ds):
        return Reason.SL_RESERVED
    ia_size = 64 - t0sz
    # At least one bit for the initial table, at most its stride and 16 tables.
    resolved = ia_size - granule.index_lsb(start_level)
    if not 1 <= resolved <= granule.stride + CONCATENATION_BITS:
        return Reason.SL_INCONSISTENT
    oa_size = min(_PS_BITS[VTCR_PS.get(vtcr)], PA_SIZE if large else 48)
    blocks = frozenset(level for level in _BLOCK_LEVELS[granule, ds] if level >= start_level)
    return WalkParams(granule, ds, ia_size, oa_size, start_level, blocks)


def walk(ipa: int, vttbr: int, vtcr: int, read64: Read64) -> Leaf | WalkFault:
    """Translate ``ipa`` to its leaf descriptor (AArch64.S2Walk).

    ``vttbr`` and ``vtcr`` are the registers' values; ``read64`` returns the
    little-endian 64-bit word at an 8-byte aligned PA, or None where there is no
    memory.  There are at most five lookups, whatever the tables hold.
    """
    checked = params(vtcr)
    if isinstance(checked, Reason):
        return WalkFault(checked, 0, None)
    if ipa >> checked.ia_size:
        return WalkFault(Reason.IPA_RANGE, 0, None)
    table = checked.base(vttbr)
    if table >> checked.oa_size:
        return WalkFault(Reason.BASE_RANGE, 0, table)
    granule = checked.granule
    path: tuple[Step, ...] = ()
    index_msb = checked.ia_size - 1
    for level in range(checked.start_level, FINAL_LEVEL + 1):
        lsb = granule.index_lsb(level)
        index = (ipa & bit_range(index_msb, lsb)) >> lsb
        descriptor_pa = table + DESCRIPTOR_BYTES * index
        descriptor = read64(descriptor_pa)
        if descriptor is None:
            return WalkFault(Reason.TABLE_OUTSIDE_MEMORY, level, descriptor_pa, path)
        path += (Step(level, descriptor_pa, descriptor),)
        leaf = checked.is_leaf(descriptor, level)
        if not leaf and (level == FINAL_LEVEL or descriptor & 0b11 != 0b11):
            return WalkFault(Reason.INVALID, level, descriptor_pa, path)
        address = checked.output_address(descriptor, lsb if leaf else int(granule))
        if address >> checked.oa_size:
            return WalkFault(Reason.OUTPUT_RANGE, level, descriptor_pa, path)
        if leaf:
            first = ipa & -(1 << lsb)
            return Leaf(first, level, 1 << lsb, descriptor_pa, descriptor, address, path)
        table = address
        index_msb = lsb - 1
    raise AssertionError("a level 3 descriptor is a leaf or a fault")
