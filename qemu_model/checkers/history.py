# SPDX-License-Identifier: GPL-2.0-or-later
"""A run told in the order of the program's lines: the ground on which checkers stand.

The agent's observations say what each line reported; the trace, placed between the
agent's markers, says what the PEs did meanwhile; together they feed one ``SlotLog``
for each life of each memory slot.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from qemu_model.arch.entry import IPA, TTWL, ttwl_to_level
from qemu_model.arch.registers import SysReg
from qemu_model.arch.stage2 import FINAL_LEVEL, Granule, WalkParams
from qemu_model.channel import Channel, Frame, Pages, Result, What
from qemu_model.errors import InfrastructureError
from qemu_model.model.dirtylog import SlotLog
from qemu_model.model.injection import FAULTS
from qemu_model.model.producer import walk_params
from qemu_model.pages import joined, members
from qemu_model.program import PAGE, Operation, Program
from qemu_model.trace import FLAG_CAS_LOST, Kind, RawRecord

_ON_SLOTS = frozenset(
    ("clear", "log", "snapshot", "compare", "get", "precopy", "precopy-round", "precopy-final")
)
"""Operations that mean nothing for a slot whose creation has failed."""
_READS = ("get", "precopy-round", "precopy-final")
PAYLOADS = ("run", "wait", "stop")
HDBSS_REGISTERS = (SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2)


Append = tuple[int, int, int]
"""An entry: number of its trace record, IPA, and the bytes that it stands for (0 where its
level is none of a leaf)."""


@dataclass
class History:
    """Everything that the checkers ask about a finished run."""

    slots: list[SlotLog] = field(default_factory=list)
    """Every life of every slot, in the order of creation."""
    appends: dict[tuple[int, int], list[Append]] = field(default_factory=dict)
    """Appended entries by program line and phase: 0 while the operation went on, 1 after it."""
    entries: int = 0
    refusals: int = 0
    faults: int = 0
    """Injected faults of HDBSS writes: entries are lost, and software has to find out."""
    injections: int = 0
    told: int = 0
    """The last line on which userspace saw that such a fault ended KVM_RUN."""
    writes: int = 0
    """MSRs to HDBSSBR_EL2 and HDBSSPROD_EL2."""
    levels: set[int] = field(default_factory=set)
    pes: set[int] = field(default_factory=set)
    """PEs that appended something."""
    unchecked: dict[str, str] = field(default_factory=dict)
    """Checkers that could not see all that they ask about, with the reason: their own note."""

    def figures(self) -> dict[str, int]:
        """The numbers of the report, and those that a program can demand to reach."""
        total = [slot.figures for slot in self.slots]
        return {
            "pages": sum(f.changed for f in total),
            "reported": sum(f.reported for f in total),
            "entries": self.entries,
            "refusals": self.refusals,
            "faults": self.faults,
            "injections": self.injections,
            "writes": self.writes,
            "pes": len(self.pes),
            "levels": next(iter(self.levels)) if len(self.levels) == 1 else -len(self.levels),
            "lost": sum(len({debt.page for debt in slot.lost()}) for slot in self.slots),
            "late": sum(f.late for f in total),
            "lateness": max((f.lateness for f in total), default=0),
            "spurious": sum(f.spurious for f in total),
        }


def build(program: Program, observations: Channel, trace: Iterable[RawRecord]) -> History:
    """Tell the run; ``trace`` is empty where the machine had no interceptor."""
    history = History()
    _read_trace(history, trace)
    frames: dict[int, list[Frame]] = defaultdict(list)
    for frame in observations.frames:
        frames[frame.line].append(frame)
        if history.faults and isinstance(frame, Result) and ended_by_kvm(frame):
            history.told = max(history.told, frame.line)
    teller = _Teller(history, frames)
    for operation in program:
        teller.tell(operation)
    return history


def _read_trace(history: History, trace: Iterable[RawRecord]) -> None:
    at = (0, 0)
    appends: dict[tuple[int, int], list[Append]] = defaultdict(list)
    sizes = _leaf_sizes(Granule.KB4)
    for seq, kind, pe, flags, a, b, c, _d, _e, _f in trace:
        if kind == Kind.APPEND:
            level = ttwl_to_level(b >> TTWL.low)
            size = sizes.get(level, 0)
            if not flags & FLAG_CAS_LOST:  # else another PE's entry stands for the transition
                appends[at].append((seq, b & IPA.mask, size))
            history.entries += 1
            history.levels.add(level)
            history.pes.add(pe)
        elif kind == Kind.MARK:
            at = (a >> 1, a & 1)
        elif kind == Kind.REFUSE:
            history.refusals += 1
        elif kind == Kind.INJECT:
            history.injections += 1
            history.faults += a in FAULTS
        elif kind == Kind.ENTRY:
            walk = walk_params(c)
            sizes = _leaf_sizes(walk.granule if isinstance(walk, WalkParams) else Granule.KB4)
        elif kind == Kind.WRITE and a in HDBSS_REGISTERS:
            history.writes += 1
    history.appends = dict(appends)


def ended_by_kvm(result: Result) -> bool:
    """Whether a payload ended because KVM_RUN failed."""
    return result.op in PAYLOADS and result.fields.get("error") == "kvm-run"


@cache
def _leaf_sizes(granule: Granule) -> dict[int, int]:
    return {level: granule.leaf_size(level) for level in range(FINAL_LEVEL + 1)}


class _Teller:
    """Walks the program and keeps what is known at each line."""

    def __init__(self, history: History, frames: dict[int, list[Frame]]) -> None:
        self._history = history
        self._frames = frames
        self._slots: dict[int, SlotLog] = {}
        self._manual = False
        self._running: set[int] = set()
        self._ran: int | None = None
        """Last line on which a vCPU was in the guest."""
        self._first_run: dict[int, int] = {}
        """By slot: first line on which a vCPU ran since the slot was last compared."""
        self._compared: dict[int, int] = {}
        self._by_start: list[SlotLog] = []
        self._starts: list[int] = []

    def tell(self, operation: Operation) -> None:
        """Apply one operation, and what the PEs did while and after it."""
        self._apply_appends(operation.line, 0)
        self._tell(operation)
        self._apply_appends(operation.line, 1)

    def _tell(self, operation: Operation) -> None:
        line, name = operation.line, operation.name
        result = next((f for f in self._frames.get(line, ()) if isinstance(f, Result)), None)
        if result is None:
            return
        if name in ("run", "start"):
            self._running.add(operation.subject())
        if name in ("run", "start", "wait", "stop", "destroy") or self._running:
            self._note_running(line)
        if name in ("run", "wait", "stop"):
            self._running.discard(operation.subject())
        if result.ret < 0 or (name in _ON_SLOTS and operation.subject() not in self._slots):
            return
        match name:
            case "vm":
                self._manual = operation.args.get("dirty", "plain") != "plain"
            case "clear":
                self._slot(operation).cleared(line, self._pages(operation, What.CLEARED))
            case "slot":
                self._create(operation)
            case "log":
                self._slot(operation).set_logging(line, operation.words[1:2] == ("on",))
            case "unslot":
                self._forget(operation.subject(), line)
            case "destroy":
                for slot in tuple(self._slots):
                    self._forget(slot, line)
                self._running.clear()
            case "snapshot":
                self._slot(operation).snapshot(line)
                self._compared[operation.subject()] = line
                self._first_run.pop(operation.subject(), None)
            case "compare":
                slot = operation.subject()
                pages = self._pages(operation, What.CHANGED)
                self._slot(operation).compared(line, pages, self._first_run.pop(slot, None))
                self._compared[slot] = line
        if name in _READS:
            slot = operation.subject()
            quiet = not self._running and self._compared.get(slot, 0) > (self._ran or 0)
            log = self._slot(operation)
            log.read(line, self._pages(operation, What.REPORTED), quiet)
            if name == "precopy-final":
                log.differs(self._pages(operation, What.DIFFERS))

    def _create(self, operation: Operation) -> None:
        slot, gpa = operation.subject(), operation.number("gpa")
        pages, logging = operation.number("pages"), "log" in operation.words
        log = self._slots.get(slot)
        if log is not None and log.pages == pages:
            # A move (KVM_MR_MOVE): the bitmap moves with the slot, and so does what it owes.
            log.gpa = gpa
        else:
            log = SlotLog(slot, gpa, pages, manual=self._manual)
            self._slots[slot] = log
            self._history.slots.append(log)
        log.set_logging(operation.line, logging)
        self._index()

    def _forget(self, slot: int, line: int) -> None:
        log = self._slots.pop(slot, None)
        if log is not None:
            log.set_logging(line, False)
            self._index()

    def _slot(self, operation: Operation) -> SlotLog:
        return self._slots[operation.subject()]

    def _pages(self, operation: Operation, what: What) -> frozenset[int]:
        parts = (
            frame.ranges
            for frame in self._frames.get(operation.line, ())
            if isinstance(frame, Pages) and frame.what is what
        )
        try:
            return members(joined(parts), self._slot(operation).pages)
        except ValueError as error:
            raise InfrastructureError(
                f"the agent's channel cannot be trusted: line {operation.line}: {error}"
            ) from error

    def _note_running(self, line: int) -> None:
        self._ran = line
        for slot in self._slots:
            self._first_run.setdefault(slot, line)

    def _apply_appends(self, line: int, phase: int) -> None:
        appends = self._history.appends.get((line, phase), ())
        # Nothing is read in between, so that of the appends for one block SlotLog keeps the
        # first and the last: the others cost as many pages each and change nothing.
        first_of: dict[tuple[int, int], int] = {}
        last_of: dict[tuple[int, int], int] = {}
        for seq, ipa, size in appends:
            if size > PAGE:
                first_of.setdefault((ipa, size), seq)
                last_of[ipa, size] = seq
        for seq, ipa, size in appends:
            if size > PAGE and seq not in (first_of[ipa, size], last_of[ipa, size]):
                continue
            # The last slot that starts at or below the entry, then those inside a block.
            at = max(bisect_right(self._starts, ipa) - 1, 0)
            while at < len(self._starts) and self._starts[at] < ipa + size:
                log = self._by_start[at]
                first = max(ipa - log.gpa, 0) // PAGE
                end = min(ipa + size - log.gpa, log.pages * PAGE) // PAGE
                if first < end:
                    log.appended(line, range(first, end), seq)
                at += 1

    def _index(self) -> None:
        self._by_start = sorted(self._slots.values(), key=lambda log: log.gpa)
        self._starts = [log.gpa for log in self._by_start]
