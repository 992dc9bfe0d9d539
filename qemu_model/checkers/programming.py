# SPDX-License-Identifier: GPL-2.0-or-later
"""Are the registers of every guest entry ones that the architecture allows?"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from qemu_model.arch.bits import bit_range
from qemu_model.arch.registers import (
    HDBSSPROD_FSC,
    HDBSSPROD_INDEX,
    SZ_MAX,
    VTCR_HA,
    VTCR_HD,
    VTCR_HDBSS,
    Hdbssbr,
    SysReg,
    hd_enabled,
)
from qemu_model.channel import Result
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.model.choices import Caching
from qemu_model.model.injection import What
from qemu_model.model.tlb import Tlb
from qemu_model.run import Run
from qemu_model.trace import Anomaly, Header, Kind, RawRecord, Trace, describe

_SWITCHED = VTCR_HA.mask | VTCR_HD.mask | VTCR_HDBSS.mask
_KINDS = (
    *(Kind.RESET, Kind.EXIT, Kind.WRITE, Kind.ENTRY, Kind.ANOMALY),
    *(Kind.READ, Kind.REFUSE, Kind.INJECT),
)
_TABLE = bit_range(47, 1)
"""VTTBR_EL2 without VMID and CnP."""
_TABLES = (Anomaly.TABLE_OUTSIDE_RAM, Anomaly.WALK_UNSUPPORTED)


def check(run: Run, history: History) -> list[Divergence]:
    """The first violation of each rule."""
    if run.trace is None:
        return []
    findings = chain(
        violations(run.trace),
        access_flags(run.trace),
        sizes(run.trace, orders(run)),
        stale(run.trace) if run.about.choices.caching is Caching.LAZY else (),
    )
    return first_of_each(findings)


def first_of_each(findings: Iterable[Divergence]) -> list[Divergence]:
    """Keep one finding a rule: a wrong register is wrong at every entry."""
    kept: dict[str, Divergence] = {}
    for finding in findings:
        kept.setdefault(finding.rule, finding)
    return list(kept.values())


def violations(trace: Trace) -> Iterator[Divergence]:
    """Yield what is wrong with the guest entries of a trace."""
    live: dict[int, tuple[int, int]] = {}
    """By PE: start and end of the buffer that it writes to, or whose entries are pending."""
    known = _Known()
    for record in trace.of(*_KINDS):
        kind, pe = record[1], record[2]
        known.follow(record)
        if kind == Kind.ENTRY and record[6] & VTCR_HDBSS.mask:
            if known.strange_index(record):
                yield _strange_index(record)
            known.enter(record)
        if _ends(record):
            live.pop(pe, None)
        elif kind == Kind.ENTRY:
            yield from _registers(trace.header, record, known)
            buffer = Hdbssbr(record[4])
            if buffer.reserved:
                continue
            start, end = buffer.base, buffer.base + 8 * buffer.capacity
            for other, (first, last) in live.items():
                if other != pe and start < last and first < end:
                    yield _finding(
                        record,
                        "I4 (a buffer belongs to one PE at a time)",
                        f"a buffer of its own for PE {pe}",
                        f"[{start:#x}, {end:#x}) is live on PE {other} too",
                    )
            live[pe] = (start, end)
        elif kind == Kind.ANOMALY and record[4] in _TABLES:
            yield _finding(
                record,
                "VTTBR_EL2, VTCR_EL2 (stage 2 tables lie in memory and have a known format)",
                "a stage 2 walk that gets to a leaf or a fault",
                Anomaly(record[4]).name,
            )


def access_flags(trace: Trace) -> Iterator[Divergence]:
    """Yield writes of VTCR_EL2 that switch HDBSS off and HA, which was there before, with it.

    Before and after are values that differ in nothing but HA, HD and HDBSS.  A kernel that
    had HA = 0 until HDBSS was on may have it so again.
    """
    on: set[int] = set()
    without: set[int] = set()
    """Values that were there with HA = 0 before anything else."""
    for record in trace.of(Kind.WRITE):
        if record[4] != SysReg.VTCR_EL2:
            continue
        vtcr, others = record[6], record[6] & ~_SWITCHED
        if vtcr & VTCR_HDBSS.mask:
            on.add(others)
        elif vtcr & VTCR_HA.mask:
            without.discard(others)
        elif others not in on:
            without.add(others)
        elif others not in without:
            yield Divergence(
                checker="programming",
                summary=f"PE {record[2]} lost VTCR_EL2.HA when HDBSS was switched off",
                rule="VTCR_EL2.HA (KVM sets it when the VM is created; HDBSS needs it, and leaves "
                "it as it is)",
                required="HA = 1 in a VTCR_EL2 that was loaded with HDBSS = 1 before",
                seen=f"VTCR_EL2 = {vtcr:#x}",
                records=(describe(record),),
            )


def orders(run: Run) -> dict[tuple[int, int], int | None]:
    """By marker (line, phase): the order that userspace has asked for from there on.

    None where it is not known, or where there is none.
    """
    good = {f.line for f in run.observations.frames if isinstance(f, Result) and f.ret >= 0}
    found: dict[tuple[int, int], int | None] = {}
    for operation in run.program:
        if operation.name in ("enable-cap", "destroy"):
            found[operation.line, 0] = None
        elif operation.name == "hdbss" and operation.line in good:
            found[operation.line, 0] = None
            if operation.words[:1] == ("on",):
                found[operation.line, 1] = operation.number("order")
    return found


def sizes(trace: Trace, asked: Mapping[tuple[int, int], int | None]) -> Iterator[Divergence]:
    """Yield guest entries with a buffer of another size than userspace has asked for."""
    order: int | None = None
    for record in trace.of(Kind.MARK, Kind.ENTRY):
        if record[1] == Kind.MARK:
            order = asked.get((record[4] >> 1, record[4] & 1), order)
        elif order is not None and record[6] & VTCR_HDBSS.mask:
            buffer = Hdbssbr(record[4])
            if buffer.sz != order:
                yield _finding(
                    record,
                    "KVM_CAP_ARM_HW_DIRTY_STATE_TRACK (args[0]: buffers of 4 KB << order)",
                    f"HDBSSBR_EL2.SZ = {order}",
                    f"SZ = {buffer.sz}: {4 << buffer.sz} KB are written to",
                )


def stale(trace: Trace) -> Iterator[Divergence]:
    """Yield guest entries with a VTCR_EL2 that differs from what the TLB may hold.

    Only a trace with TLBI records, one of ``Caching.LAZY``, has what that needs.  With HD = 0
    in the TLB nothing is dirtied that software does not see, so that who switches HDBSS on
    may have its TLBI when guests run already.
    """
    tlbs: dict[int, Tlb] = defaultdict(Tlb)
    for record in trace.of(Kind.RESET, Kind.TLBI, Kind.ENTRY):
        _, kind, pe, _, a, b, c, d, _, _ = record
        if kind == Kind.RESET:
            tlbs[pe].invalidate(None)
        elif kind == Kind.TLBI:
            for index, tlb in tlbs.items():
                if c or index == pe:
                    tlb.invalidate(None if a else b)
        else:
            held = tlbs[pe].vtcr(d >> 48, c)
            if held != c and hd_enabled(held):
                yield _finding(
                    record,
                    "VTCR_EL2 (HA, HD and HDBSS may be cached in TLBs until a TLBI)",
                    f"a TLBI of VMID {d >> 48} after VTCR_EL2 was changed for it",
                    f"HD = {VTCR_HD.get(c)}, HDBSS = {VTCR_HDBSS.get(c)}, while translations "
                    f"with HD = {VTCR_HD.get(held)}, HDBSS = {VTCR_HDBSS.get(held)} may be cached",
                )


def _ends(record: RawRecord) -> bool:
    """Whether the PE has no buffer any more: left empty, emptied, changed or switched off."""
    match record[1]:
        case Kind.RESET:
            return True
        case Kind.EXIT:
            return not HDBSSPROD_INDEX.get(record[7])
        case Kind.WRITE:
            return record[4] in (SysReg.HDBSSPROD_EL2, SysReg.HDBSSBR_EL2)
        case Kind.ENTRY:
            return not record[6] & VTCR_HDBSS.mask
    return False


class _Known:
    """What is not software's doing, or not known to it."""

    def __init__(self) -> None:
        self._written: set[int] = set()
        """PEs whose INDEX software has written since their last guest exit."""
        self._place: dict[int, tuple[int, int] | None] = {}
        """By PE: buffer and stage 2 table of the guest that INDEX belongs to, None after reset."""
        self.preset: set[int] = set()
        """PEs whose INDEX was injected, and not written since."""
        self.told: set[int] = set()
        """PEs whose software has read an FSC, or was told by HDBSSF, and has not written since."""

    def follow(self, record: RawRecord) -> None:
        _, kind, pe, _, a, b, *_ = record
        if kind == Kind.RESET or (kind == Kind.WRITE and a == SysReg.HDBSSPROD_EL2):
            self.preset.discard(pe)
            self.told.discard(pe)
            if kind == Kind.RESET:
                self._written.discard(pe)
                self._place[pe] = None
            else:
                self._written.add(pe)
        elif kind == Kind.EXIT:
            self._written.discard(pe)
        elif kind == Kind.INJECT and a == What.INDEX:
            self.preset.add(pe)
        elif (kind == Kind.READ and a == SysReg.HDBSSPROD_EL2 and HDBSSPROD_FSC.get(b)) or (
            kind == Kind.REFUSE
        ):
            self.told.add(pe)

    def strange_index(self, entry: RawRecord) -> bool:
        """Whether the INDEX of a guest entry is left from another guest, buffer, or reset."""
        pe = entry[2]
        if not HDBSSPROD_INDEX.get(entry[5]) or pe in self._written or pe in self.preset:
            return False
        return self._place.get(pe, _place(entry)) != _place(entry)

    def enter(self, entry: RawRecord) -> None:
        """INDEX is that of this guest and buffer from here on."""
        self._place[entry[2]] = _place(entry)


def _place(entry: RawRecord) -> tuple[int, int]:
    """Buffer and stage 2 table; not the VMID, of which a VM can get another one."""
    return entry[4], entry[7] & _TABLE


def _strange_index(record: RawRecord) -> Divergence:
    return _finding(
        record,
        "I4 (no guest runs with the INDEX of another guest or buffer)",
        "INDEX written for the guest and buffer that are entered",
        f"INDEX = {HDBSSPROD_INDEX.get(record[5])}, which nobody has written for them",
    )


def _registers(header: Header, record: RawRecord, known: _Known) -> Iterator[Divergence]:
    br, prod, vtcr = record[4], record[5], record[6]
    buffer = Hdbssbr(br)
    if not (vtcr & VTCR_HA.mask and vtcr & VTCR_HD.mask):
        yield _finding(
            record,
            "VTCR_EL2.HDBSS (effective only with HA and HD)",
            "HA = HD = 1 where HDBSS = 1",
            f"VTCR_EL2 = {vtcr:#x}: HA = {VTCR_HA.get(vtcr)}, HD = {VTCR_HD.get(vtcr)}",
        )
    if buffer.reserved:
        yield _finding(
            record,
            "HDBSSBR_EL2.SZ (10 to 15 are reserved)",
            f"SZ of at most {SZ_MAX}",
            f"SZ = {buffer.sz}",
        )
        return
    if not buffer.aligned:
        yield _finding(
            record,
            "I_SXBYL (the base is aligned to the buffer's size)",
            f"BADDR aligned to {4096 << buffer.sz:#x}",
            f"HDBSSBR_EL2 = {br:#x}",
        )
    end = buffer.base + 8 * buffer.capacity
    if buffer.base < header.ram_base or end > header.ram_base + header.ram_size:
        yield _finding(
            record,
            "HDBSSBR_EL2.BADDR (the buffer lies in memory)",
            f"a buffer in [{header.ram_base:#x}, {header.ram_base + header.ram_size:#x})",
            f"[{buffer.base:#x}, {end:#x})",
        )
    index = HDBSSPROD_INDEX.get(prod)
    if index > buffer.capacity and record[2] not in known.preset:
        yield _finding(
            record,
            "R_RXCMY (INDEX beyond the capacity never comes from hardware)",
            f"INDEX of at most {buffer.capacity}",
            f"INDEX = {index}",
        )
    if HDBSSPROD_FSC.get(prod) and record[2] in known.told:
        yield _finding(
            record,
            "I6 (an HDBSS fault is handled and FSC zeroed before the guest goes on)",
            "HDBSSPROD_EL2.FSC = 0 at a guest entry",
            f"HDBSSPROD_EL2 = {prod:#x}",
        )


def _finding(record: RawRecord, rule: str, required: str, seen: str) -> Divergence:
    return Divergence(
        checker="programming",
        summary=f"PE {record[2]} ran the guest with {seen}; required: {required}",
        rule=rule,
        required=required,
        seen=seen,
        records=(describe(record),),
    )
