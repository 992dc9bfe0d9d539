# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers, buffers and stage 2 walks in words, for people who debug.  Pure.

Every function takes plain values and a ``Read64`` of physical memory, and returns lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qemu_model.arch import descriptor as leaf_bits
from qemu_model.arch import entry, syndrome
from qemu_model.arch.bits import bit_range
from qemu_model.arch.registers import (
    VTCR_HA,
    VTCR_HD,
    VTCR_HDBSS,
    Hdbssbr,
    Hdbssprod,
    ProdFsc,
    hd_enabled,
    hdbss_enabled,
)
from qemu_model.arch.stage2 import (
    DESCRIPTOR_BYTES,
    FINAL_LEVEL,
    Leaf,
    Read64,
    Reason,
    Step,
    WalkFault,
    WalkParams,
    params,
    walk,
)

_CLASSES = {
    0x00: "unknown reason",
    0x01: "WFI or WFE",
    0x07: "access to SVE, SIMD or floating point",
    0x16: "HVC",
    0x17: "SMC",
    0x18: "trapped MSR, MRS or system instruction",
    0x20: "instruction abort",
    0x24: "data abort",
    0x2F: "SError",
    0x3C: "BRK",
}
_VECTORS = {0x000: "synchronous", 0x080: "IRQ", 0x100: "FIQ", 0x180: "SError"}
_SYNCHRONOUS = 0x000
_FSC = {
    ProdFsc.NONE: "no fault",
    ProdFsc.EXTERNAL_ABORT: "External abort on an HDBSS write",
    ProdFsc.GPF: "Granule Protection Fault on an HDBSS write",
}
_AP = {0b00: "no access", 0b01: "read-only", 0b10: "write-only", 0b11: "read-write"}
_FIPA = bit_range(43, 4)


def size_words(size: int) -> str:
    """A number of bytes: 4 KB, 2 MB, 1 GB."""
    for unit, shift in (("GB", 30), ("MB", 20), ("KB", 10)):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} bytes"


@dataclass(frozen=True)
class PeState:
    """One PE as ``where`` shows it: registers as software has written them.

    ``place`` is the PC in words, ``el`` None where it is not known.
    """

    index: int
    place: str
    el: int | None
    guest: bool
    halted: bool
    hdbssbr: int
    hdbssprod: int
    vtcr: int
    last_exit: str = ""


def pe_lines(pe: PeState, current: bool = False) -> list[str]:
    """Where a PE is and what its HDBSS does."""
    el = "" if pe.el is None else f", EL{pe.el}"
    words = f"{el}, {'in the guest' if pe.guest else 'host'}{', halted' if pe.halted else ''}"
    flags = " ".join(f"{f.name}={f.get(pe.vtcr)}" for f in (VTCR_HA, VTCR_HD, VTCR_HDBSS))
    enabled = hdbss_enabled(pe.vtcr)
    return [
        f"{'*' if current else ' '} PE {pe.index}: {pe.place}{words}",
        f"    HDBSS {'on' if enabled else 'off'}: VTCR_EL2 {pe.vtcr:#x}, {flags}",
        f"    {base_words(pe.hdbssbr)}",
        f"    {index_words(pe.hdbssbr, pe.hdbssprod)}",
        f"    last exit: {pe.last_exit or 'none seen'}",
    ]


def base_words(hdbssbr: int) -> str:
    """HDBSSBR_EL2: where the buffer is and how large."""
    held = Hdbssbr(hdbssbr)
    size = "reserved" if held.reserved else f"{held.capacity} entries"
    aligned = "" if held.aligned else ", BADDR is not aligned to that"
    return f"HDBSSBR_EL2 {held.value:#x}: BADDR {held.base:#x}, SZ {held.sz} ({size}{aligned})"


def index_words(hdbssbr: int, hdbssprod: int) -> str:
    """HDBSSPROD_EL2: how full the buffer is, and whether a write of it has failed."""
    held, capacity = Hdbssprod(hdbssprod), Hdbssbr(hdbssbr).capacity
    full = ", full" if held.index >= capacity else ""
    fault = _FSC.get(ProdFsc(held.fsc)) if held.fsc in set(ProdFsc) else "reserved"
    return (
        f"HDBSSPROD_EL2 {held.value:#x}: INDEX {held.index}, FSC {held.fsc:#04x} ({fault}); "
        f"{held.index} pending{full}"
    )


def buffer_lines(
    hdbssbr: int, hdbssprod: int, vtcr: int, read64: Read64, count: int
) -> Iterator[str]:
    """The last ``count`` entries before INDEX, and the slot that INDEX names."""
    base, prod = Hdbssbr(hdbssbr), Hdbssprod(hdbssprod)
    yield base_words(hdbssbr)
    yield index_words(hdbssbr, hdbssprod)
    if base.reserved:
        return
    checked = params(vtcr)
    last = min(prod.index, base.capacity)
    for slot in range(max(0, last - count), last):
        yield f"   [{slot}] {_entry_words(read64(base.slot(slot)), checked)}"
    if prod.index < base.capacity:
        found = read64(base.slot(prod.index))
        yield f"-> [{prod.index}] {_entry_words(found, checked)}; the next entry goes here"
    else:
        yield f"-> [{prod.index}] is behind the end: a write that needs an entry is refused"


def _entry_words(value: int | None, checked: WalkParams | Reason) -> str:
    if value is None:
        return "is outside RAM"
    found = entry.Entry.decode(value)
    if not found.valid:
        return f"{value:#018x}: not valid"
    return f"{value:#018x}: {entry_range(found, checked)}"


def entry_range(found: entry.Entry, checked: WalkParams | Reason) -> str:
    """What a valid entry calls dirty."""
    text = f"IPA {found.ipa:#x}, TTWL {entry.level_to_ttwl(found.level)} (level {found.level}"
    if not isinstance(checked, Reason) and 0 <= found.level <= FINAL_LEVEL:
        text += f", {size_words(checked.granule.leaf_size(found.level))}"
    return f"{text})"


# --- stage 2 --------------------------------------------------------------------------


def walk_lines(
    ipa: int, vttbr: int, vtcr: int, hdbssbr: int, hdbssprod: int, read64: Read64
) -> Iterator[str]:
    """The stage 2 walk of an IPA step by step, and what a write there would do."""
    checked = params(vtcr)
    yield f"IPA {ipa:#x}, VTTBR_EL2 {vttbr:#x} (VMID {vttbr >> 48}), VTCR_EL2 {vtcr:#x}"
    if isinstance(checked, Reason):
        yield f"  no walk: {checked.value}: {checked.fault.value}, level 0"
        return
    yield (
        f"  {size_words(1 << checked.granule)} granule, {checked.ia_size} bits of IPA, "
        f"{checked.oa_size} of PA, from level {checked.start_level}"
    )
    found = walk(ipa, vttbr, vtcr, read64)
    top = checked.ia_size - 1
    for step in found.path:
        low = checked.granule.index_lsb(step.level)
        index = (ipa & bit_range(top, low)) >> low
        table = step.descriptor_pa - DESCRIPTOR_BYTES * index
        yield (
            f"  level {step.level}: table {table:#x}, index {index}, at {step.descriptor_pa:#x}: "
            f"{step.descriptor:#018x}, {_descriptor_words(step, checked)}"
        )
        top = low - 1
    if isinstance(found, WalkFault):
        at = "" if found.pa is None else f" ({found.pa:#x})"
        yield f"  fault: {found.reason.value}{at}: {found.fault.value}, level {found.level}"
        return
    yield f"  {leaf_words(found.descriptor)}"
    yield f"  a write: {_write_words(found, vtcr, hdbssbr, hdbssprod)}"


def _descriptor_words(step: Step, checked: WalkParams) -> str:
    if checked.is_leaf(step.descriptor, step.level):
        low = checked.granule.index_lsb(step.level)
        kind = "page" if step.level == FINAL_LEVEL else "block"
        address = checked.output_address(step.descriptor, low)
        return f"{size_words(1 << low)} {kind} at PA {address:#x}"
    if step.level < FINAL_LEVEL and step.descriptor & 0b11 == 0b11:
        return f"table at {checked.output_address(step.descriptor, int(checked.granule)):#x}"
    return "invalid" if not step.descriptor & 1 else "reserved"


def leaf_words(descriptor: int) -> str:
    """The permissions and the dirty state of a leaf."""
    ap = descriptor >> leaf_bits.S2AP_READ.low & 0b11
    bits = f"S2AP={ap:02b} ({_AP[ap]})"
    for field in (leaf_bits.DBM, leaf_bits.AF, leaf_bits.CONTIGUOUS):
        bits += f" {field.name}={field.get(descriptor)}"
    state = leaf_bits.dirty_state(descriptor)
    words = "not managed by hardware" if state is leaf_bits.DirtyState.OTHER else state.value
    return f"{bits} XN={leaf_bits.XN.get(descriptor):02b}: {words}"


def _write_words(leaf: Leaf, vtcr: int, hdbssbr: int, hdbssprod: int) -> str:
    if not leaf.descriptor & leaf_bits.AF.mask and not vtcr & VTCR_HA.mask:
        return "Access flag fault"
    if leaf_bits.writable(leaf.descriptor):
        return "is done, nothing is recorded"
    if not leaf_bits.writable_clean(leaf.descriptor):
        return "Permission fault, it is not writable"
    if not hd_enabled(vtcr):
        return "Permission fault, VTCR_EL2.{HA,HD} is not {1,1}"
    if not hdbss_enabled(vtcr):
        return "makes it dirty, nothing is recorded: HDBSS is off"
    prod, base = Hdbssprod(hdbssprod), Hdbssbr(hdbssbr)
    if prod.fsc:
        return "is refused with HDBSSF: HDBSSPROD_EL2.FSC is not 0"
    if prod.index >= base.capacity:
        return "is refused with HDBSSF: the buffer is full"
    return f"makes it dirty and appends entry {prod.index}"


# --- exceptions -----------------------------------------------------------------------


def exit_words(esr: int, far: int, hpfar: int, vector: int) -> str:
    """Why a PE has left the guest: registers as the kernel gets them."""
    kind = _VECTORS.get(vector & 0x180, "")
    if vector & 0x180 != _SYNCHRONOUS:
        return kind
    name = _CLASSES.get(syndrome.EC.get(esr), f"exception class {syndrome.EC.get(esr):#x}")
    abort = syndrome.Abort.decode(esr)
    if abort is None:
        return f"{name} (ESR_EL2 {esr:#x})"
    level = "" if abort.level is None else f" level {abort.level}"
    parts = [f"{name}, {abort.kind.value}{level}"]
    if not abort.instruction:
        parts.append("write" if abort.wnr else "read")
    if abort.s1ptw:
        parts.append("on a stage 1 walk")
    if abort.hdbssf:
        parts.append("HDBSSF")
    parts.append(f"IPA {ipa_of(far, hpfar):#x}")
    return f"{', '.join(parts)} (ESR_EL2 {esr:#x})"


def ipa_of(far: int, hpfar: int) -> int:
    """The IPA of an abort; HPFAR_EL2 has its page, FAR_EL2 the rest."""
    return (hpfar & _FIPA) << 8 | far & 0xFFF
