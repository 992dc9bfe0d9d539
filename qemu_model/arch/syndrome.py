# SPDX-License-Identifier: GPL-2.0-or-later
"""ESR_EL2 for the aborts that stage 2 and FEAT_HDBSS raise (digest 9)."""

from dataclasses import dataclass
from enum import Enum, IntEnum

from qemu_model.arch.bits import Field

EC = Field("EC", 31, 26)
IL = Field("IL", 25, 25)
FSC = Field("FSC", 5, 0)
WNR = Field("WnR", 6, 6)
S1PTW = Field("S1PTW", 7, 7)
CM = Field("CM", 8, 8)
ISS2 = Field("ISS2", 55, 32)
DIRTY_BIT = Field("DirtyBit", 37, 37)
HDBSSF = Field("HDBSSF", 43, 43)


class ExceptionClass(IntEnum):
    """The classes of ESR_EL2.EC that matter here."""

    TRAPPED_SYSREG = 0x18
    INSTRUCTION_ABORT_LOWER_EL = 0x20
    DATA_ABORT_LOWER_EL = 0x24


class Kind(Enum):
    """What an IFSC or DFSC says; the level is separate."""

    ADDRESS_SIZE = "Address size fault"
    TRANSLATION = "Translation fault"
    ACCESS_FLAG = "Access flag fault"
    PERMISSION = "Permission fault"
    EXTERNAL_ABORT_WALK = "synchronous External abort on walk or hardware update"
    GPF_WALK = "Granule Protection Fault on walk or hardware update"
    GPF = "Granule Protection Fault, not on a walk"
    UNSUPPORTED_ATOMIC = "Unsupported atomic hardware update fault"


# Codes 0bxxxxLL for levels 0..3; below level 0 single codes.
_LEVELLED = {
    Kind.ADDRESS_SIZE: 0b000000,
    Kind.TRANSLATION: 0b000100,
    Kind.ACCESS_FLAG: 0b001000,
    Kind.PERMISSION: 0b001100,
    Kind.EXTERNAL_ABORT_WALK: 0b010100,
    Kind.GPF_WALK: 0b100100,
}
_SINGLE: dict[tuple[Kind, int | None], int] = {
    (Kind.ADDRESS_SIZE, -1): 0b101001,
    (Kind.TRANSLATION, -1): 0b101011,
    (Kind.EXTERNAL_ABORT_WALK, -1): 0b010011,
    (Kind.GPF_WALK, -1): 0b100011,
    (Kind.GPF_WALK, -2): 0b100010,
    (Kind.GPF, None): 0b101000,
    (Kind.UNSUPPORTED_ATOMIC, None): 0b110001,
}
_ENCODE: dict[tuple[Kind, int | None], int] = {
    **{(kind, level): code + level for kind, code in _LEVELLED.items() for level in range(4)},
    **_SINGLE,
}
_DECODE = {code: key for key, code in _ENCODE.items()}


def encode_fsc(kind: Kind, level: int | None) -> int:
    """Return the 6-bit fault status code; raises ValueError if there is none."""
    try:
        return _ENCODE[kind, level]
    except KeyError:
        raise ValueError(f"{kind.value} has no code for level {level}") from None


def decode_fsc(fsc: int) -> tuple[Kind, int | None] | None:
    """Return kind and level of a fault status code, None for one not listed here."""
    return _DECODE.get(fsc & FSC.mask)


PERMISSION_FSC = tuple(encode_fsc(Kind.PERMISSION, level) for level in range(4))
"""Fault status code of a Permission fault, indexed by the level of the leaf."""


@dataclass(frozen=True, slots=True)
class Abort:
    """An Instruction or Data Abort from a lower EL, as ESR_EL2 describes it.

    ``esr`` gives ISV=0 and zero in every field that has no name here.  WnR of an
    abort on a stage 1 walk is UNCONFIRMED; ``wnr`` is encoded as it is given.
    """

    instruction: bool
    kind: Kind
    level: int | None
    wnr: bool = False
    s1ptw: bool = False
    hdbssf: bool = False
    dirty_bit: bool = False

    @property
    def esr(self) -> int:
        """The 64 bits of ESR_EL2."""
        klass = (
            ExceptionClass.INSTRUCTION_ABORT_LOWER_EL
            if self.instruction
            else ExceptionClass.DATA_ABORT_LOWER_EL
        )
        value = klass << EC.low | IL.mask | encode_fsc(self.kind, self.level)
        for field, on in (
            (WNR, self.wnr and not self.instruction),
            (S1PTW, self.s1ptw),
            (HDBSSF, self.hdbssf),
            (DIRTY_BIT, self.dirty_bit),
        ):
            value |= field.mask if on else 0
        return value

    @classmethod
    def decode(cls, esr: int) -> "Abort | None":
        """Decode ESR_EL2; None when it is no such abort or its code is not known."""
        klass = EC.get(esr)
        status = decode_fsc(FSC.get(esr))
        aborts = (
            ExceptionClass.INSTRUCTION_ABORT_LOWER_EL,
            ExceptionClass.DATA_ABORT_LOWER_EL,
        )
        if klass not in aborts or status is None:
            return None
        instruction = klass == ExceptionClass.INSTRUCTION_ABORT_LOWER_EL
        return cls(
            instruction=instruction,
            kind=status[0],
            level=status[1],
            wnr=bool(esr & WNR.mask) and not instruction,
            s1ptw=bool(esr & S1PTW.mask),
            hdbssf=bool(esr & HDBSSF.mask),
            dirty_bit=bool(esr & DIRTY_BIT.mask),
        )
