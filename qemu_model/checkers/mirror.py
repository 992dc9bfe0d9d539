# SPDX-License-Identifier: GPL-2.0-or-later
"""Did the PEs do what FEAT_HDBSS says?  The trace, replayed against the reference model.

Each PE of the trace is a ``model.Producer`` and a place: at EL2, in the guest, or
between a refusal and the exception that tells it.  A record is handled by what the
place allows; the first one that the model does not explain ends the replay of that
PE and becomes a divergence.  Descriptors are seen only where a record shows one.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from qemu_model.arch import syndrome
from qemu_model.arch.descriptor import dirtied, writable_clean
from qemu_model.arch.entry import TTWL, ttwl_to_level
from qemu_model.arch.registers import (
    HAFDBS,
    HDBSSBR_RES0,
    HDBSSPROD_RES0,
    MMFR1_HAFDBS,
    ProdFsc,
    SysReg,
    stage2_in_use,
)
from qemu_model.arch.stage2 import Reason
from qemu_model.checkers import replay_faults as faults
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.checkers.replay import (
    AT_EL2,
    BEFORE_RESET,
    FAILED,
    GIVEN_UP,
    IN_GUEST,
    REFUSED,
    SYNCHRONOUS,
    Mismatch,
    Replay,
)
from qemu_model.model.choices import BEST, Choices
from qemu_model.model.producer import Producer
from qemu_model.run import Run
from qemu_model.trace import (
    BARRIER_CONTEXT,
    BARRIER_DSB,
    FLAG_CAS_LOST,
    FLAG_INDEX,
    Kind,
    RawRecord,
    describe,
)

SHOWN_RECORDS = 6
"""Records of the PE, and again of the page, that explain a divergence."""

_HDBSSF = syndrome.HDBSSF.mask
_ABORTS = (
    syndrome.ExceptionClass.DATA_ABORT_LOWER_EL,
    syndrome.ExceptionClass.INSTRUCTION_ABORT_LOWER_EL,
)
_PERMISSION_LEVEL = {fsc: level for level, fsc in enumerate(syndrome.PERMISSION_FSC)}
_VECTORS = range(0x400, 0x800, 0x80)


def check(run: Run, history: History) -> list[Divergence]:
    """The first mismatch of each PE."""
    return [] if run.trace is None else check_trace(run.trace, run.about.choices)


def check_trace(records: Iterable[RawRecord], choices: Choices = BEST) -> list[Divergence]:
    """Replay a trace and return the first mismatch of each PE, in the order of the trace.

    ``choices`` are those with which the PEs ran.

    ``records`` are (seq, kind, pe, flags, a, b, c, d, e, f); if there is a mismatch
    they are read a second time for what led to it.
    """
    if iter(records) is records:
        records = tuple(records)
    replays: dict[int, Replay] = {}
    found: list[tuple[RawRecord, Mismatch]] = []
    for record in records:
        pe = record[2]
        replay = replays.get(pe)
        if replay is None:
            replay = replays[pe] = Replay(choices)
        mismatch = replay.handlers.get(record[1], _out_of_place)(replay, record)
        if replay.observer is not None:
            replay.observer.follow(record)
        if record[1] == Kind.TLBI:
            _invalidate(replays, record)
        if mismatch is not None:
            found.append((record, mismatch))
            replay.handlers = GIVEN_UP
    return [_explain(records, record, mismatch) for record, mismatch in found]


def _explain(records: Iterable[RawRecord], at: RawRecord, mismatch: Mismatch) -> Divergence:
    """Add the last records of the PE and of the page to a mismatch."""
    has_page = at[1] in (Kind.APPEND, Kind.REFUSE)
    of_pe: deque[RawRecord] = deque(maxlen=SHOWN_RECORDS)
    of_page: deque[RawRecord] = deque(maxlen=SHOWN_RECORDS)
    for record in records:
        if record[2] == at[2]:
            of_pe.append(record)
        if has_page and record[1] in (Kind.APPEND, Kind.REFUSE) and record[4] >> 12 == at[4] >> 12:
            of_page.append(record)
        if record[0] == at[0]:
            break
    shown = sorted({record[0]: record for record in (*of_page, *of_pe)}.items())
    where = f" for IPA {at[4]:#x}" if has_page else ""
    return Divergence(
        checker="mirror",
        summary=f"record {at[0]}: {_name(at[1])} of PE {at[2]}{where} is not what the model does",
        rule=mismatch.rule,
        required=mismatch.required,
        seen=mismatch.seen,
        records=tuple(describe(record) for _, record in shown),
    )


def _name(kind: int) -> str:
    return Kind(kind).name if kind in Kind.__members__.values() else f"kind {kind}"


# --- handlers -----------------------------------------------------------------


def _out_of_place(replay: Replay, record: RawRecord) -> Mismatch | None:
    handlers = replay.handlers
    if handlers is GIVEN_UP:
        return None
    place = next(name for name, of_place in _PLACES if of_place is handlers)
    allowed = ", ".join(_name(kind) for kind in sorted(handlers))
    return Mismatch(place, f"one of {allowed}", _name(record[1]))


def _nothing(replay: Replay, record: RawRecord) -> Mismatch | None:
    return None


def _reset(replay: Replay, record: RawRecord) -> Mismatch | None:
    _, _, _, _, hdbssbr, hdbssprod, vtcr, _, _, _ = record
    # Every field is UNKNOWN after a Warm reset, so any value is right but for RES0.
    if hdbssbr & HDBSSBR_RES0 or hdbssprod & HDBSSPROD_RES0:
        return Mismatch(
            "HDBSSBR_EL2, HDBSSPROD_EL2 (RES0 bits)",
            f"no bit of {HDBSSBR_RES0:#x}, none of {HDBSSPROD_RES0:#x}",
            f"HDBSSBR_EL2 {hdbssbr:#x}, HDBSSPROD_EL2 {hdbssprod:#x}",
        )
    replay.producer = Producer(hdbssbr, hdbssprod, vtcr)
    replay.late = ProdFsc.NONE
    if replay.tlb is not None:
        replay.tlb.invalidate(None)
    replay.handlers = AT_EL2
    return None


def _write(replay: Replay, record: RawRecord) -> Mismatch | None:
    _, _, _, _, register, written, held, _, _, _ = record
    if register not in _WRITABLE:
        return Mismatch(
            "MSR (registers that the trace records)", "a producer register", hex(register)
        )
    expected = replay.producer.write(register, written)
    if held != expected:
        return Mismatch(
            f"{SysReg(register).name} (RES0 bits of the register)",
            f"{expected:#x} after writing {written:#x}",
            f"{held:#x}",
        )
    return None


def _read(replay: Replay, record: RawRecord) -> Mismatch | None:
    _, _, _, _, register, delivered, _, _, _, _ = record
    if register in _WRITABLE:
        expected = replay.producer.read(register)
        if replay.observer is not None and register == SysReg.HDBSSPROD_EL2:
            expected = replay.observer.visible
        if delivered == expected:
            return None
        return Mismatch(
            f"{SysReg(register).name} (a read delivers what software wrote and hardware counted)",
            f"{expected:#x}",
            f"{delivered:#x}",
        )
    if register != SysReg.ID_AA64MMFR1_EL1:
        return Mismatch(
            "MRS (registers that the trace records)", "a producer register", hex(register)
        )
    hafdbs = MMFR1_HAFDBS.get(delivered)
    if hafdbs != HAFDBS.HDBSS:
        return Mismatch(
            "ID_AA64MMFR1_EL1.HAFDBS (4: FEAT_HDBSS)", f"{int(HAFDBS.HDBSS)}", f"{hafdbs}"
        )
    return None


def _barrier(replay: Replay, record: RawRecord) -> Mismatch | None:
    _, _, _, _, what, count, visible, _, _, _ = record
    observer = replay.observer
    if observer is None:
        return Mismatch("visibility=at-once (nothing is held back)", "no BARRIER", "one")
    if what == BARRIER_DSB:
        expected = observer.outstanding, observer.visible
        if not count or expected != (count, visible):
            return Mismatch(
                "R_CGCHP (a DSB makes what is outstanding observable, INDEX takes more)",
                f"{expected[0]} entries, HDBSSPROD_EL2 reads as {expected[1]:#x}",
                f"{count} entries, {visible:#x}",
            )
    elif what != BARRIER_CONTEXT or visible != observer.synchronized:
        return Mismatch(
            "I_XXFYP (a context synchronization event shows increments that are complete)",
            f"HDBSSPROD_EL2 reads as {observer.synchronized:#x}",
            f"{visible:#x}",
        )
    return None


def _tlbi(replay: Replay, record: RawRecord) -> Mismatch | None:
    if replay.tlb is None:
        return Mismatch("caching=at-once (nothing is cached)", "no TLBI", "one")
    return None


def _invalidate(replays: Mapping[int, Replay], record: RawRecord) -> None:
    """Let PEs forget what a TLBI says."""
    _, _, pe, _, of_all, vmid, broadcast, _, _, _ = record
    for index, replay in replays.items():
        if replay.tlb is not None and (broadcast or index == pe):
            replay.tlb.invalidate(None if of_all else vmid)
            if replay.handlers is IN_GUEST:
                replay.translate_anew()


def _entry(replay: Replay, record: RawRecord) -> Mismatch | None:
    _, _, _, _, hdbssbr, hdbssprod, vtcr, vttbr, hcr, _ = record
    producer = replay.producer
    if hdbssbr != producer.hdbssbr or hdbssprod != producer.hdbssprod or vtcr != producer.vtcr:
        return Mismatch(
            "guest entry (the registers are those last written)",
            f"HDBSSBR {producer.hdbssbr:#x}, HDBSSPROD {producer.hdbssprod:#x}, "
            f"VTCR {producer.vtcr:#x}",
            f"HDBSSBR {hdbssbr:#x}, HDBSSPROD {hdbssprod:#x}, VTCR {vtcr:#x}",
        )
    if not stage2_in_use(hcr):
        return Mismatch("guest entry (HCR_EL2)", "VM = 1, TGE = 0", f"HCR_EL2 {hcr:#x}")
    replay.vmid = vttbr >> 48
    replay.translate_anew()
    replay.handlers = IN_GUEST
    return None


def _exit(replay: Replay, record: RawRecord) -> Mismatch | None:
    _, _, _, _, esr, _, _, hdbssprod, vector, _ = record
    if hdbssprod != replay.producer.hdbssprod:
        return Mismatch(
            "R_PCTTC (only an append moves INDEX)",
            f"HDBSSPROD_EL2 {replay.producer.hdbssprod:#x}",
            f"{hdbssprod:#x}",
        )
    if vector not in _VECTORS:
        return Mismatch("exception from a lower EL", "vector 0x400..0x780", f"{vector:#x}")
    # An interrupt leaves ESR_EL2 as the last synchronous exception has set it.
    if esr & _HDBSSF and vector in SYNCHRONOUS:
        return Mismatch(
            "R_STJMN (HDBSSF tells a refused append, nothing else)",
            "ESR_EL2.ISS2.HDBSSF = 0: no access was refused before this exit",
            f"ESR_EL2 {esr:#x}",
        )
    replay.handlers = AT_EL2
    return None


def _exit_refused(replay: Replay, record: RawRecord) -> Mismatch | None:
    _, _, _, _, esr, _, _, hdbssprod, vector, _ = record
    if esr != replay.refused_esr or vector not in SYNCHRONOUS:
        return Mismatch(
            "R_STJMN (the refused access takes a stage 2 abort)",
            f"ESR_EL2 {replay.refused_esr:#x} at a synchronous vector",
            f"ESR_EL2 {esr:#x} at vector {vector:#x}",
        )
    if hdbssprod != replay.producer.hdbssprod:
        return Mismatch(
            "R_STJMN (a refusal leaves INDEX and FSC)",
            f"HDBSSPROD_EL2 {replay.producer.hdbssprod:#x}",
            f"{hdbssprod:#x}",
        )
    replay.handlers = AT_EL2
    return None


def _append(replay: Replay, record: RawRecord) -> Mismatch | None:
    _, _, _, flags, ipa, entry, slot, descriptor_pa, before, after = record
    producer = replay.producer
    if not producer.enabled:
        return Mismatch(
            "effective VTCR_EL2.HDBSS (R_GKFDY: HDBSS = 0, no entry)",
            "HA = HD = HDBSS = 1 for an append",
            f"VTCR_EL2 {producer.vtcr:#x}",
        )
    if producer.sz_reserved:
        return Mismatch(
            "HDBSSBR_EL2.SZ (10..15 are reserved; UNCONFIRMED, taken as not writable)",
            "no append",
            f"HDBSSBR_EL2 {producer.hdbssbr:#x}",
        )
    if not producer.can_append():
        return _cannot_append(producer)
    if replay.late:
        return Mismatch("I_LMSZL (entries are lost until FSC is set)", "LOST", "an append")
    if flags & FLAG_INDEX != producer.index or slot != producer.slot():
        return Mismatch(
            "R_PCTTC (the entry is written at BADDR + 8 * INDEX)",
            f"INDEX {producer.index:#x}, slot at {producer.slot():#x}",
            f"INDEX {flags & FLAG_INDEX:#x}, slot at {slot:#x}",
        )
    level = ttwl_to_level(entry >> TTWL.low)
    bad = _leaf(producer, before, descriptor_pa, level)
    if bad is not None:
        return bad
    if entry != producer.entry_for(ipa, level):
        return Mismatch(
            "~R_QWSGD (the entry is the leaf's IPA, its level and valid)",
            f"{producer.entry_for(ipa, level):#x}",
            f"{entry:#x}",
        )
    # C9: a lost compare-and-swap leaves the entry, and a descriptor of somebody else.
    if flags & FLAG_CAS_LOST:
        if not (replay.choices.lost_cas_keeps_entry or replay.filling):
            return Mismatch(
                "lost_cas_keeps_entry=no (INDEX is taken back)", "no entry of a lost race", "one"
            )
    elif after != dirtied(before):
        return Mismatch(
            "R_PQJJR, R_PRHKD (one update sets S2AP[1], and AF with it)",
            f"descriptor {dirtied(before):#x}",
            f"{after:#x}",
        )
    else:
        replay.filling = False
    producer.appended()
    return None


def _cannot_append(producer: Producer) -> Mismatch:
    if producer.fsc:
        return Mismatch(
            "R_STJMN (no append while FSC is not 0)",
            "a refusal",
            f"an append with HDBSSPROD_EL2 {producer.hdbssprod:#x}",
        )
    return Mismatch(
        "R_RXCMY, R_YHLRY (full at INDEX >= 2^(SZ+12)/8: no dirty update)",
        f"a refusal from INDEX {producer.capacity:#x} on",
        f"an append at INDEX {producer.index:#x}",
    )


def _leaf(producer: Producer, descriptor: int, pa: int, level: int) -> Mismatch | None:
    """Check that a descriptor is a writable-clean leaf of that level."""
    walk = producer.walk
    if isinstance(walk, Reason):
        return Mismatch(
            "stage 2 walk (VTCR_EL2)",
            "a walk that finds a leaf",
            f"{producer.vtcr:#x}: {walk.value}",
        )
    if pa & 7 or not walk.is_leaf(descriptor, level):
        return Mismatch(
            "stage 2 descriptor (AArch64.DecodeDescriptorType, AArch64.BlockDescSupported)",
            f"a leaf at level 3 or one of {sorted(walk.block_levels)}, aligned to 8 bytes",
            f"descriptor {descriptor:#x} at {pa:#x} for level {level}",
        )
    if not writable_clean(descriptor):
        return Mismatch(
            "R_XZFQH, R_PZFQC (only writable-clean is dirtied: DBM = 1, S2AP[1] = 0)",
            "DBM = 1 and S2AP[1] = 0 before",
            f"descriptor {descriptor:#x}",
        )
    return None


def _refuse(replay: Replay, record: RawRecord) -> Mismatch | None:
    _, _, _, _, _, esr, hdbssprod, descriptor_pa, descriptor, hdbssbr = record
    producer = replay.producer
    if not producer.enabled:
        return Mismatch(
            "effective VTCR_EL2.HDBSS (R_STJMN refuses only while it is 1)",
            "HA = HD = HDBSS = 1 for a refusal",
            f"VTCR_EL2 {producer.vtcr:#x}",
        )
    if hdbssprod != producer.hdbssprod or hdbssbr != producer.hdbssbr:
        return Mismatch(
            "R_STJMN (a refusal leaves the registers)",
            f"HDBSSPROD_EL2 {producer.hdbssprod:#x}, HDBSSBR_EL2 {producer.hdbssbr:#x}",
            f"{hdbssprod:#x}, {hdbssbr:#x}",
        )
    if producer.can_append():
        return Mismatch(
            "R_STJMN, R_RXCMY (refused only when full or FSC is not 0)",
            f"an append: INDEX {producer.index:#x} of {producer.capacity:#x}, FSC 0",
            "a refusal",
        )
    level = _PERMISSION_LEVEL.get(syndrome.FSC.get(esr))
    if not esr & _HDBSSF or syndrome.EC.get(esr) not in _ABORTS or level is None:
        return Mismatch(
            "R_STJMN (a stage 2 Permission fault with HDBSSF)",
            "an Instruction or Data Abort from a lower EL, FSC 0b0011LL, HDBSSF = 1",
            f"ESR_EL2 {esr:#x}",
        )
    bad = _leaf(producer, descriptor, descriptor_pa, level)
    if bad is not None:
        return bad
    replay.refused_esr = esr
    replay.handlers = REFUSED
    return None


_WRITABLE = frozenset((SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2, SysReg.VTCR_EL2))

BEFORE_RESET.update(
    {
        Kind.BEGIN: _nothing,
        Kind.INJECT: _nothing,
        Kind.END: _nothing,
        Kind.MARK: _nothing,
        Kind.ANOMALY: _nothing,
        Kind.RESET: _reset,
    }
)
AT_EL2.update(
    {
        **BEFORE_RESET,
        Kind.WRITE: _write,
        Kind.READ: _read,
        Kind.ENTRY: _entry,
        Kind.BARRIER: _barrier,
        Kind.TLBI: _tlbi,
        Kind.LATE: faults.late,
    }
)
IN_GUEST.update(
    {
        **BEFORE_RESET,
        Kind.ANOMALY: faults.anomaly,
        Kind.APPEND: _append,
        Kind.REFUSE: _refuse,
        Kind.EXIT: _exit,
        Kind.BARRIER: _barrier,
        Kind.INJECT: faults.inject,
        Kind.LOST: faults.lost,
        Kind.LATE: faults.late,
    }
)
REFUSED.update({Kind.EXIT: _exit_refused, Kind.RESET: _reset, Kind.END: _nothing})
FAILED.update(
    {
        Kind.EXIT: faults.exit_failed,
        Kind.LOST: faults.lost,
        Kind.RESET: _reset,
        Kind.END: _nothing,
    }
)
_PLACES = (
    ("PE that has not left reset", BEFORE_RESET),
    ("PE at EL2 (appends and exits come from EL1&0 alone)", AT_EL2),
    ("PE in EL1&0 (register accesses are recorded at EL2 alone)", IN_GUEST),
    ("R_STJMN (the abort of a refused access is the PE's next record)", REFUSED),
    ("~R_JHHQW, R_LHLSD (the abort of a failed write is the PE's next record)", FAILED),
)
