# SPDX-License-Identifier: GPL-2.0-or-later
"""The places in a kernel's code at which FEAT_HDBSS shows: found by their instruction words.

Instructions are decoded from their bits, because a disassembler of today names none of
the HDBSS registers.  What the kernel patches in at boot (``.altinstructions``) counts
where it will stand.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from qemu_model.arch.registers import SysReg
from qemu_model.errors import UsageError
from qemu_model.vmlinux.elf import Symbol, Vmlinux

ESR_EL1 = 0x18_0000 | 5 << 12 | 2 << 8
"""``sys_reg(3, 0, 5, 2, 0)``: under HCR_EL2.E2H an access to it is one to ESR_EL2."""
SMC_0 = 0xD400_0003
HINT_127 = 0xD503_2FFF
"""The agent's marker."""
_HINTS = 0xD503
"""The upper half of hints and barriers."""
_ISB, _ISB_MASK = 0xD503_30DF, 0xFFFF_F0FF
_DSB, _DSB_NXS, _DSB_MASK = 0xD503_339F, 0xD503_323F, 0xFFFF_F3FF
"""DSB for loads and stores of any domain: CRm<1:0> is 0b11."""
ERET = 0xD69F_03E0
_ERETAA, _ERETAB = 0xD69F_0BFF, 0xD69F_0FFF

_RT = 0x1F

_ALTERNATIVE = struct.Struct("<iiHBB")
"""struct alt_instr: offsets of the original and of the replacement from their own
fields, cpucap, lengths in bytes."""


@dataclass(frozen=True)
class Landmarks:
    """The symbols by which code is found that has no instruction of its own."""

    enter: str
    """The function whose ERET enters a guest."""
    firmware: str
    """The function through which PSCI is called."""
    vectors: str
    """The vectors that exceptions from a guest are taken to."""
    copies: str | None
    """Vectors that a PE may use instead."""
    elsewhere: str
    """Prefix of the code that does not run at EL2 at the addresses of the ELF file."""


KVM = Landmarks(
    enter="__guest_enter",
    firmware="__arm_smccc_smc",
    vectors="__kvm_hyp_vector",
    copies="__bp_harden_hyp_vecs",
    elsewhere="__kvm_nvhe_",
)
"""Those of a kernel, in VHE mode."""
CONFORMANCE = Landmarks(
    enter="guest_enter",
    firmware="smc_call",
    vectors="el2_vectors",
    copies=None,
    elsewhere="el1_",
)
"""Those of our own programs at EL2 (guest_images/conformance)."""
_VECTOR_SIZE = 0x800
_COPIES_MAX = 16
"""Hardened vectors of a kernel: 4 until today."""
_LOWER_EL = range(0x400, 0x800, 0x80)


class Role(Enum):
    """What the interceptor has to do at a site."""

    MRS = "read of a register that the model holds"
    MSR = "write of a register that the model holds"
    MRS_ESR = "read of ESR_EL2"
    ERET = "guest entry"
    VECTOR = "exception from a lower Exception level"
    SMC = "call of the firmware"
    DSB = "data synchronization barrier for loads and stores"
    ISB = "instruction synchronization barrier"
    TLBI = "invalidation of all stage 2 translations"


@dataclass(frozen=True)
class Site:
    """One instruction: ``register`` and ``rt`` where it is an MRS or MSR."""

    address: int
    role: Role
    register: int = 0
    rt: int = 31


@dataclass(frozen=True)
class Tlbi:
    """A TLBI of all stage 2 translations: of the VMID of VTTBR_EL2 or of all VMIDs."""

    all: bool
    broadcast: bool
    """On all PEs, not on this one only."""


def _tlbis() -> dict[int, Tlbi]:
    """TLBI {VMALLS12E1,ALLE1}{,IS,OS}{,nXS}: SYS #4, C8 or C9, Cm, #op2, without Xt."""
    return {
        0xD50C_0000 | crn << 12 | crm << 8 | op2 << 5: Tlbi(op2 == 4, crm != 7)
        for crn in (8, 9)
        for crm in (1, 3, 7)
        for op2 in (4, 6)
    }


_TLBI = _tlbis()


def tlbi(word: int) -> Tlbi | None:
    """What an instruction invalidates; None for other words."""
    return _TLBI.get(word & ~_RT)


def _interesting() -> dict[int, tuple[Role, int]]:
    """Instruction words without Rt, and what they mean."""
    table: dict[int, tuple[Role, int]] = {}
    held = (SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2, SysReg.VTCR_EL2)
    for register in (*held, SysReg.ID_AA64MMFR1_EL1):
        table[0xD520_0000 | register] = (Role.MRS, int(register))
    for register in held:
        table[0xD500_0000 | register] = (Role.MSR, int(register))
    for number in (int(SysReg.ESR_EL2), ESR_EL1):
        table[0xD520_0000 | number] = (Role.MRS_ESR, number)
    for word in _TLBI:
        table[word] = (Role.TLBI, 0)
    return table


_TABLE = _interesting()


def decode(word: int, address: int) -> Site | None:
    """The site that this word makes of its address; None for any other instruction.

    ERET is not among them: which one enters a guest is not in its bits.
    """
    if word == SMC_0:
        return Site(address, Role.SMC)
    found = _TABLE.get(word & ~_RT)
    return None if found is None else Site(address, found[0], found[1], word & _RT)


def barrier(word: int) -> Role | None:
    """The role of a barrier that matters to what a PE has appended; None for other words."""
    if word & _ISB_MASK == _ISB:
        return Role.ISB
    return Role.DSB if word & _DSB_MASK in (_DSB, _DSB_NXS) else None


_SETS_BUFFER = re.compile(
    b"[\\x40-\\x5e]"  # Xt, any but XZR: to write 0 is no more than an initialization
    + re.escape(struct.pack("<I", 0xD500_0000 | SysReg.HDBSSBR_EL2)[1:]),
    re.DOTALL,
)


def sets_buffer(code: bytes) -> bool:
    """Whether there is an instruction that gives a PE a buffer, in code without symbols."""
    return any(found.start() % 4 == 0 for found in _SETS_BUFFER.finditer(code))


@dataclass(frozen=True)
class Sites:
    """All sites of a kernel by their virtual address, and the ERET that a retry uses."""

    by_address: Mapping[int, Site]
    retry_eret: int
    """An ERET that is no site, so that it can be executed without a stop."""
    barriers: Mapping[int, Site] = field(default_factory=dict)
    """Where barriers stand or may be patched in; apart, because most runs need none."""

    def of(self, *roles: Role) -> tuple[int, ...]:
        """The addresses of the sites with these roles, in order."""
        return tuple(sorted(a for a, site in self.by_address.items() if site.role in roles))


def _words(vmlinux: Vmlinux) -> Iterator[tuple[int, int]]:
    """Every aligned word of the code with its address, filtered by what can matter."""
    wanted = {*_TABLE, SMC_0 & ~_RT, ERET & ~_RT, _ERETAA & ~_RT, _ERETAB & ~_RT}
    for code in vmlinux.code():
        words = array("I")
        words.frombytes(code.data[: len(code.data) & ~3])
        for index, word in enumerate(words):
            if word & ~_RT in wanted or (word >> 16 == _HINTS and barrier(word) is not None):
                yield code.address + 4 * index, word


def _replacements(vmlinux: Vmlinux) -> Iterator[tuple[int, int]]:
    """What alternatives put into the code: (address where it will stand, word)."""
    table, base = vmlinux.data(".altinstructions"), vmlinux.section_address(".altinstructions")
    codes = tuple(vmlinux.code())
    usable = len(table) - len(table) % _ALTERNATIVE.size
    for at, (original, replacement, _, _, size) in zip(
        range(base, base + usable, _ALTERNATIVE.size),
        _ALTERNATIVE.iter_unpack(table[:usable]),
        strict=True,
    ):
        source = at + 4 + replacement
        for code in codes:
            if code.address <= source < code.address + len(code.data):
                start = source - code.address
                data = code.data[start : start + size]
                for index in range(0, len(data) & ~3, 4):
                    (word,) = struct.unpack_from("<I", data, index)
                    yield at + original + index, word
                break


def _extent(symbol: Symbol) -> range:
    return range(symbol.address, symbol.address + (symbol.size or 0x100))


def find_sites(vmlinux: Vmlinux, landmarks: Landmarks = KVM) -> Sites:
    """Find all sites; UsageError when this cannot be a kernel with KVM at EL2."""
    enter = vmlinux.find(landmarks.enter)
    if enter is None:
        raise UsageError(
            f"vmlinux {vmlinux.path}: there is no {landmarks.enter}; "
            "--mode gdb needs an arm64 kernel with KVM"
        )
    sites: dict[int, Site] = {}
    retry = 0
    entering = _extent(enter)
    firmware = vmlinux.find(landmarks.firmware)
    calling = range(0) if firmware is None else _extent(firmware)
    barriers: dict[int, Site] = {}
    for address, word in _words(vmlinux):
        site = decode(word, address)
        role = barrier(word)
        if role is not None:
            barriers[address] = Site(address, role)
        elif site is not None:
            if site.role is not Role.SMC or address in calling:
                sites[address] = site
        elif word in (ERET, _ERETAA, _ERETAB):
            if address in entering:
                sites[address] = Site(address, Role.ERET)
            elif word == ERET:
                retry = retry or address
    for address, word in _replacements(vmlinux):
        site = decode(word, address)
        role = barrier(word)
        if role is not None:
            barriers.setdefault(address, Site(address, role))
        elif site is not None:
            sites.setdefault(address, site)
    for base in _vectors(vmlinux, landmarks):
        for offset in _LOWER_EL:
            sites[base + offset] = Site(base + offset, Role.VECTOR)
    for found_sites in (sites, barriers):
        for address in [
            a for a in found_sites if vmlinux.name_of(a).startswith(landmarks.elsewhere)
        ]:
            del found_sites[address]
    for address in barriers.keys() & sites.keys():
        del barriers[address]  # a vector; what comes first there is seen as such
    found = Sites(sites, retry, barriers)
    if not found.of(Role.ERET) or not retry:
        raise UsageError(f"vmlinux {vmlinux.path}: no ERET in {landmarks.enter}, or none but that")
    return found


def _vectors(vmlinux: Vmlinux, landmarks: Landmarks) -> Iterator[int]:
    """The vector tables that a PE may use while a guest runs: KVM's and its copies."""
    yield vmlinux.address(landmarks.vectors)
    copies = vmlinux.find(landmarks.copies) if landmarks.copies is not None else None
    if copies is not None:
        size = min(copies.size or 4 * _VECTOR_SIZE, _COPIES_MAX * _VECTOR_SIZE)
        yield from range(copies.address, copies.address + size, _VECTOR_SIZE)
