# SPDX-License-Identifier: GPL-2.0-or-later
"""The records of HDBSS writes that fail, by injection or by themselves, as ``mirror`` sees them."""

from qemu_model.arch import syndrome
from qemu_model.arch.descriptor import dirtied, writable_clean
from qemu_model.arch.registers import ProdFsc, SysReg
from qemu_model.checkers.replay import AT_EL2, FAILED, SYNCHRONOUS, Mismatch, Replay
from qemu_model.model.choices import Report
from qemu_model.model.injection import FAULTS, What
from qemu_model.trace import FLAG_DIRTY, FLAG_PRECISE, Anomaly, RawRecord


def anomaly(replay: Replay, record: RawRecord) -> Mismatch | None:
    """ANOMALY: a buffer that cannot be written acts as an External abort does."""
    _, _, _, _, reason, detail, _, _, _, _ = record
    producer = replay.producer
    appends = producer.enabled and producer.can_append()
    if reason == Anomaly.BUFFER_OUTSIDE_RAM:
        if detail != producer.slot() or not appends:
            return Mismatch(
                "HDBSS write outside memory (~R_JHHQW)",
                f"the slot of an append: {producer.slot():#x}",
                f"{detail:#x} with HDBSSPROD_EL2 {producer.hdbssprod:#x}",
            )
    elif reason == Anomaly.RESERVED_SZ:
        if detail != producer.hdbssbr or not producer.sz_reserved or not appends:
            return Mismatch(
                "HDBSSBR_EL2.SZ (10..15 are reserved)",
                f"an append with a reserved SZ: HDBSSBR_EL2 {producer.hdbssbr:#x}",
                f"{detail:#x} with HDBSSPROD_EL2 {producer.hdbssprod:#x}",
            )
    else:
        return None
    choices = replay.choices
    return _write_failed(
        replay,
        ProdFsc.EXTERNAL_ABORT,
        precise=choices.external_abort is Report.PRECISE,
        dirty=choices.dirty_after_external_abort,
        late=choices.fsc_delay,
    )


def _write_failed(
    replay: Replay, fsc: ProdFsc, *, precise: bool, dirty: bool, late: int
) -> Mismatch | None:
    """An HDBSS write took a fault; INDEX stays (~R_JHHQW, R_LHLSD)."""
    replay.dirties = dirty
    if precise:
        gpf = fsc is ProdFsc.GPF
        replay.failed = syndrome.Kind.GPF_WALK if gpf else syndrome.Kind.EXTERNAL_ABORT_WALK
        replay.handlers = FAILED
    elif late:
        replay.late = fsc
    else:
        replay.producer.fail(fsc)
    return None


def inject(replay: Replay, record: RawRecord) -> Mismatch | None:
    """INJECT; what comes with a reset is in the RESET record."""
    _, _, _, flags, what, _, _, hdbssprod, late, _ = record
    producer = replay.producer
    replay.filling = what == What.FILL
    if what == What.UNKNOWN:
        return None
    if what in FAULTS:
        if not producer.enabled or not producer.can_append() or replay.late:
            return Mismatch(
                "~R_JHHQW, R_LHLSD (a fault of the write of an entry)",
                "a PE that appends",
                f"VTCR_EL2 {producer.vtcr:#x}, HDBSSPROD_EL2 {producer.hdbssprod:#x}",
            )
        _write_failed(
            replay,
            ProdFsc.GPF if what == What.GPF else ProdFsc.EXTERNAL_ABORT,
            precise=bool(flags & FLAG_PRECISE),
            dirty=bool(flags & FLAG_DIRTY),
            late=late,
        )
    elif what == What.INDEX:
        if producer.hdbssprod:
            return Mismatch("INJECT index (no entry is forgotten)", "HDBSSPROD_EL2 0", "entries")
        producer.write(SysReg.HDBSSPROD_EL2, hdbssprod)
    if hdbssprod != producer.hdbssprod:
        return Mismatch(
            f"INJECT (HDBSSPROD_EL2 after {What(what).word if what in list(What) else what})",
            f"{producer.hdbssprod:#x}",
            f"{hdbssprod:#x}",
        )
    return None


def lost(replay: Replay, record: RawRecord) -> Mismatch | None:
    """LOST: a dirty update without an entry."""
    _, _, _, _, _, descriptor_pa, before, after, _, _ = record
    if not (replay.dirties or replay.late):
        return Mismatch(
            "R_WZKFT (each dirty update writes an entry)",
            "an APPEND, unless ~R_QNJKV or I_LMSZL apply",
            "none",
        )
    replay.dirties = False
    if not writable_clean(before) or after != dirtied(before) or descriptor_pa & 7:
        return Mismatch(
            "R_PQJJR, R_PRHKD (one update sets S2AP[1], and AF with it)",
            f"descriptor {dirtied(before):#x} of a writable-clean one",
            f"{after:#x} at {descriptor_pa:#x}, before {before:#x}",
        )
    return None


def late(replay: Replay, record: RawRecord) -> Mismatch | None:
    """LATE: an FSC that was under way."""
    _, _, _, _, hdbssprod, _, _, _, _, _ = record
    if not replay.late:
        return Mismatch("I_LMSZL (a late FSC is that of an earlier fault)", "a fault", "none")
    replay.producer.fail(replay.late)
    replay.late = ProdFsc.NONE
    if hdbssprod != replay.producer.hdbssprod:
        return Mismatch(
            "I_LMSZL (FSC is set, INDEX stays)",
            f"HDBSSPROD_EL2 {replay.producer.hdbssprod:#x}",
            f"{hdbssprod:#x}",
        )
    return None


def exit_failed(replay: Replay, record: RawRecord) -> Mismatch | None:
    """The precise report of a failed write: INDEX stays, and HDBSSF tells (digest 9a, 9b)."""
    _, _, _, _, esr, _, _, hdbssprod, vector, _ = record
    abort = syndrome.Abort.decode(esr)
    if abort is None or (abort.kind, abort.hdbssf) != (replay.failed, True):
        return Mismatch(
            "~R_JHHQW, R_LHLSD (a precise report)",
            f"{replay.failed.value}, HDBSSF = 1",
            f"ESR_EL2 {esr:#x}",
        )
    if vector not in SYNCHRONOUS or hdbssprod != replay.producer.hdbssprod:
        return Mismatch(
            "~R_JHHQW, R_LHLSD (a precise report leaves INDEX and FSC)",
            f"HDBSSPROD_EL2 {replay.producer.hdbssprod:#x} at a synchronous vector",
            f"{hdbssprod:#x} at vector {vector:#x}",
        )
    replay.handlers = AT_EL2
    return None
