# SPDX-License-Identifier: GPL-2.0-or-later
"""Did two runs of one program do the same?  The question of two interceptors, or two modes.

Timing is not the same in two runs, and some of what it decides is legitimate.  The
program's text says where (``stretches``), and what is compared follows from it:

=========== ==================================================================
entries     A line that runs one payload (RUN): the appended (IPA, entry with its
            level) in their order.  Lines on which no vCPU runs (STILL): the same.
            Payloads that go on while the program does (FREE): how often each (IPA,
            entry) was appended; where pages are made clean meanwhile, only which of
            them were.  The PE is part of it where the vCPU is pinned, in FREE only
            for pages that a single vCPU stores to.  An entry whose compare-and-swap
            was lost does not count: the winner's stands for the page.
refusals    In RUN, with the vCPU pinned SCHED_FIFO: (PE, IPA, level, exception class,
            kind of fault, HDBSSF) in their order.  Elsewhere a preemption empties the
            buffer, so that only the kinds of refusals (all but PE and IPA) are
            compared, and only if both runs have some.  A busy host can preempt even
            SCHED_FIFO: where one run has written HDBSSBR_EL2 more often than the
            other, it was put and loaded once more, and the line is of the second sort.
registers   Writes of HDBSSBR_EL2, HDBSSPROD_EL2 and VTCR_EL2.  In RUN on a CPU that no
            other vCPU uses, from the second payload on: by PE, which states of the
            three registers follow each other, so that each order of writes counts and
            repeating the cycle of load and put does not.  Elsewhere: which values
            each register gets; by PE only where all vCPUs and the agent are pinned
            apart.  BADDR counts as the n-th distinct one since buffers could change
            (RUN), else as the number of distinct buffers of each SZ.  INDEX counts as
            zero or not zero unless the vCPU is pinned SCHED_FIFO.  VTCR_EL2 is left
            out on a line that ends a union of bitmaps: whether pages are left to be
            protected, with TLB maintenance that writes it, is chance.
injections  Those of appends, in RUN before the first FREE stretch: (kind, number, IPA) in
            their order.  Which guest entry or refusal others meet is a matter of time.
bitmaps     ``reported``, ``changed``, ``cleared`` and ``differs`` of each line.  In FREE
            their unions, up to and including the next line that tells of the slot.
results     ``ret`` and ``errno`` of each line; how a payload ended, unless it was
            stopped.
anomalies   For each stretch which of those a kernel can cause: a buffer outside of RAM,
            a reserved SZ.
=========== ==================================================================

A late HDBSSPROD_EL2.FSC is shown by the next guest exit, and an interrupt brings that at any
time.  Where the runs have lost different numbers of entries to one, what the guest stored
from there on is chance: the comparison ends before that line, and says so.

Not compared: READ, ENTRY, EXIT and RESET records, physical addresses, times, texts, what
the kernel does before the program's first line and the registers after its last.  A
scenario with endless payloads has to let them get through all their pages after
the last read of the log (``Script.settle``), or what they append is chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from qemu_model.arch import syndrome
from qemu_model.arch.entry import TTWL, ttwl_to_level
from qemu_model.arch.registers import (
    HDBSSPROD_FSC,
    HDBSSPROD_INDEX,
    Hdbssbr,
    SysReg,
)
from qemu_model.channel import Result, What
from qemu_model.checkers.difference import Difference, Key, as_counts, in_order
from qemu_model.checkers.side import Side
from qemu_model.checkers.stretches import Kind, Stretch, cut
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.model.injection import AT_APPENDS
from qemu_model.model.injection import What as Injected
from qemu_model.pages import MEMBERS_MAX
from qemu_model.program import Operation
from qemu_model.run import Run
from qemu_model.trace import FLAG_CAS_LOST, Anomaly
from qemu_model.trace import Kind as RecordKind

REGISTERS = (SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2, SysReg.VTCR_EL2)
_KERNELS_FAULT = (Anomaly.BUFFER_OUTSIDE_RAM, Anomaly.RESERVED_SZ)
_HDBSSF = syndrome.HDBSSF.mask


@dataclass(frozen=True)
class Comparison:
    """What became of it; ``difference`` is None for equivalent runs."""

    difference: Difference | None
    exact: int
    """Stretches whose entries were compared in their order."""
    sets: int
    """Stretches in which vCPUs ran freely, so that their entries were compared as a set."""
    entries: int
    """Entries of the reference run."""
    until: int | None = None
    """The line from which on nothing was compared; None if there is none."""


def require_same_program(reference: Run, other: Run) -> None:
    """UsageError unless both are runs of one program on machines of one kind."""
    if reference.about.scenario != other.about.scenario:
        raise UsageError(
            f"these are runs of {reference.about.scenario} and {other.about.scenario}; "
            "two runs of one scenario can be compared"
        )
    if reference.program.text != other.program.text:
        raise UsageError(
            f"the two runs of {other.about.scenario} have different programs; run both with "
            "the same --seed, the same --uapi, and both with or both without --small"
        )
    if reference.about.choices != other.about.choices:
        raise UsageError(
            f"the PEs of the two runs of {other.about.scenario} made different choices; run both "
            "with the same --choices"
        )
    if reference.about.injections != other.about.injections:
        raise UsageError(
            f"other faults were injected in the two runs of {other.about.scenario}; run both "
            "with the same --inject"
        )
    if (reference.trace is None) != (other.trace is None):
        raise UsageError("one of the two runs has no trace: its PEs had no FEAT_HDBSS")


def compare(reference: Run, other: Run) -> Comparison:
    """Find the first difference in the program's order; UsageError for different programs."""
    require_same_program(reference, other)
    sides = Side(reference), Side(other)
    whole = cut(reference.program)
    plan = [*takewhile(lambda stretch: not _shown_by_chance(stretch, sides), whole)]
    until = whole[len(plan)].operations[0].line if len(plan) < len(whole) else None
    free = sum(stretch.kind is Kind.FREE for stretch in plan)
    found = next(_differences(plan, sides), None)
    return Comparison(found, len(plan) - free, free, sides[0].entries, until)


def _shown_by_chance(stretch: Stretch, sides: tuple[Side, Side]) -> bool:
    """Whether a late FSC was shown at different stores: by a guest exit, in one of the runs."""
    if not all(any(side.of(RecordKind.LATE, stretch)) for side in sides):
        return False
    ours, theirs = (sum(1 for _ in side.of(RecordKind.LOST, stretch)) for side in sides)
    return ours != theirs


def _differences(plan: Sequence[Stretch], sides: tuple[Side, Side]) -> Iterator[Difference]:
    buffers = _Buffers(), _Buffers()
    bitmaps = _Bitmaps(sides)
    counted = True  # the n-th append is the same one in both runs
    for planned in plan:
        stretch = _as_seen(planned, sides)
        for question in (_results, _entries, _refusals, _anomalies):
            yield from question(stretch, sides)
        counted = counted and stretch.kind is not Kind.FREE
        if counted:
            yield from _injections(stretch, sides)
        yield from _registers(stretch, sides, buffers, bitmaps.is_open(stretch))
        yield from bitmaps.differences(stretch)


def _as_seen(stretch: Stretch, sides: tuple[Side, Side]) -> Stretch:
    """The stretch, not calm where one of the runs shows a preemption more than the other."""
    loads = {
        sum(record[4] == SysReg.HDBSSBR_EL2 for record in side.of(RecordKind.WRITE, stretch))
        for side in (sides if stretch.calm else ())
    }
    return replace(stretch, calm=False) if len(loads) > 1 else stretch


# --- results ------------------------------------------------------------------


def _results(stretch: Stretch, sides: tuple[Side, Side]) -> Iterator[Difference]:
    for operation in stretch.operations:
        seen = [_result(side.result(operation.line), operation) for side in sides]
        if seen[0] != seen[1]:
            yield Difference("results", operation.line, "the same results", seen[0], seen[1])


def _result(result: Result | None, operation: Operation) -> str:
    if result is None:
        return "none: the agent never got there"
    text = f"ret={result.ret} errno={result.errno}"
    if operation.name in ("run", "wait"):
        text += f" exit={result.fields.get('exit', '')}"
    return text


# --- entries, refusals, injections, anomalies -----------------------------------


def _entries(stretch: Stretch, sides: tuple[Side, Side]) -> Iterator[Difference]:
    ours, theirs = ([*_appended(stretch, side)] for side in sides)
    keyed = ours, theirs
    if stretch.kind is not Kind.FREE:
        rule = "one payload at a time: the same entries in the same order"
        yield from in_order("entries", rule, stretch, sides, keyed, _entry_words)
    elif stretch.once:
        rule = "vCPUs run freely, nothing makes pages clean: each entry as often"
        yield from as_counts("entries", rule, stretch, sides, keyed, _entry_words)
    else:
        rule = "vCPUs run freely and pages are made clean: the same set of entries"
        yield from as_counts("entries", rule, stretch, sides, keyed, _entry_words, once=True)


def _appended(stretch: Stretch, side: Side) -> Iterator[tuple[Key, int]]:
    for seq, _, pe, flags, ipa, entry, *_ in side.of(RecordKind.APPEND, stretch):
        if not flags & FLAG_CAS_LOST:
            yield (pe if stretch.pe_counts(ipa) else None, ipa, entry), seq


def _entry_words(key: Key) -> str:
    pe, ipa, entry = key
    assert isinstance(ipa, int) and isinstance(entry, int)
    where = "" if pe is None else f"PE {pe} "
    return f"{where}IPA {ipa:#x} level {ttwl_to_level(entry >> TTWL.low)} entry {entry:#x}"


def _refusals(stretch: Stretch, sides: tuple[Side, Side]) -> Iterator[Difference]:
    ours, theirs = ([*_refused(stretch, side)] for side in sides)
    keyed = ours, theirs
    if stretch.calm:
        rule = "nothing preempts the vCPU: the same refusals in the same order"
        yield from in_order("refusals", rule, stretch, sides, keyed, _refusal_words)
    elif ours and theirs:
        rule = "how full a buffer gets is a matter of time: the same kinds of refusals"
        yield from as_counts("refusals", rule, stretch, sides, keyed, _refusal_words, once=True)


def _refused(stretch: Stretch, side: Side) -> Iterator[tuple[Key, int]]:
    for seq, _, pe, _, ipa, esr, *_ in side.of(RecordKind.REFUSE, stretch):
        fsc = syndrome.FSC.get(esr)
        kind = syndrome.EC.get(esr), fsc >> 2, fsc & 3, bool(esr & _HDBSSF)
        yield ((pe, ipa, *kind) if stretch.calm else (None, None, *kind)), seq


def _refusal_words(key: Key) -> str:
    pe, ipa, ec, fault, level, hdbssf = key
    assert isinstance(ec, int) and isinstance(fault, int)
    where = f"PE {pe} IPA {ipa:#x} " if isinstance(ipa, int) else ""
    return f"{where}EC {ec:#x} FSC {fault:#06b}xx level {level} HDBSSF {1 if hdbssf else 0}"


def _injections(stretch: Stretch, sides: tuple[Side, Side]) -> Iterator[Difference]:
    ours, theirs = ([*_injected(stretch, side)] for side in sides)
    rule = "one payload at a time: the same injections in the same order"
    yield from in_order("injections", rule, stretch, sides, (ours, theirs), _injection_words)


def _injected(stretch: Stretch, side: Side) -> Iterator[tuple[Key, int]]:
    for seq, _, _, _, what, ipa, number, *_ in side.of(RecordKind.INJECT, stretch):
        if what in AT_APPENDS:
            yield (Injected(what).word, number, ipa), seq


def _injection_words(key: Key) -> str:
    word, number, ipa = key
    assert isinstance(ipa, int)
    return f"{word}, number {number}, at IPA {ipa:#x}"


def _anomaly_words(key: Key) -> str:
    (reason,) = key
    assert isinstance(reason, int)
    return Anomaly(reason).name


def _anomalies(stretch: Stretch, sides: tuple[Side, Side]) -> Iterator[Difference]:
    ours, theirs = (
        [((r[4],), r[0]) for r in side.of(RecordKind.ANOMALY, stretch) if r[4] in _KERNELS_FAULT]
        for side in sides
    )
    rule = "the same anomalies that a kernel can cause"
    yield from as_counts(
        "anomalies", rule, stretch, sides, (ours, theirs), _anomaly_words,
        once=True,
    )  # fmt: skip


# --- registers ----------------------------------------------------------------


class _Buffers:
    """Which buffer an address of HDBSSBR_EL2 is, in the order in which payloads used them."""

    def __init__(self) -> None:
        self._life = -1
        self._seen: dict[int, int] = {}

    def value(self, stretch: Stretch, hdbssbr: int) -> str:
        """The register without its address; buffers count anew whenever they may be others."""
        register = Hdbssbr(hdbssbr)
        if not register.base:
            return f"no buffer, SZ={register.sz}"
        if stretch.buffers != self._life:
            self._life, self._seen = stretch.buffers, {}
        number = self._seen.setdefault(register.base, len(self._seen) + 1)
        return f"buffer {number}, SZ={register.sz}"


def _value(register: int, value: int, exact: bool) -> str:
    if register == SysReg.HDBSSPROD_EL2 and not exact:
        index = "0" if not HDBSSPROD_INDEX.get(value) else "not 0"
        return f"FSC={HDBSSPROD_FSC.get(value):#x}, INDEX {index}"
    return f"{value:#x}"


def _registers(
    stretch: Stretch,
    sides: tuple[Side, Side],
    buffers: tuple[_Buffers, _Buffers],
    open_union: bool,
) -> Iterator[Difference]:
    if stretch.kind is Kind.RUN and stretch.warm:
        rule = "a CPU of its own: the same states of the registers, one after the other"
        steps = [_transitions(stretch, s, b) for s, b in zip(sides, buffers, strict=True)]
    else:
        rule = "the same values in each register"
        steps = [_values(stretch, s, b) for s, b in zip(sides, buffers, strict=True)]
    if open_union:
        # Whether there is a page left to protect, and so TLB maintenance, was chance.
        rule = "the same values in each register but VTCR_EL2"
        steps = [[(k, seq) for k, seq in one if SysReg.VTCR_EL2.name not in k] for one in steps]
    keyed = steps[0], steps[1]
    yield from as_counts(
        "registers", rule, stretch, sides, keyed, lambda key: " ".join(map(str, key)), once=True
    )


def _transitions(stretch: Stretch, side: Side, buffers: _Buffers) -> list[tuple[Key, int]]:
    """Each step from one state of a PE's registers to another, and the last state.

    A PE begins in the state in which the stretch leaves it, so that a cycle is the same set
    of steps however often it happens.
    """
    steps: list[tuple[int, int, int, str]] = []
    states: dict[int, dict[int, str]] = {}
    for seq, _, pe, _, register, value, *_ in side.of(RecordKind.WRITE, stretch):
        if register in REGISTERS:
            text = (
                buffers.value(stretch, value)
                if register == SysReg.HDBSSBR_EL2
                else _value(register, value, stretch.calm)
            )
            steps.append((seq, pe, register, text))
            states.setdefault(pe, dict.fromkeys(map(int, REGISTERS), "?"))[register] = text
    found: dict[Key, int] = {}
    for seq, pe, register, text in steps:
        state = states[pe]
        if state[register] != text:
            before = "; ".join(state.values())
            state[register] = text
            key = (f"PE {pe}: ({before}) -> ({'; '.join(state.values())})",)
            found.setdefault(key, seq)
    last = {pe: seq for seq, pe, _, _ in steps}
    for pe, state in states.items():
        found[f"PE {pe}: in the end ({'; '.join(state.values())})",] = last[pe]
    return list(found.items())


def _values(stretch: Stretch, side: Side, buffers: _Buffers) -> list[tuple[Key, int]]:
    """Each value that a register got, where it happened first."""
    found: dict[Key, int] = {}
    bases: dict[tuple[str, int], dict[int, int]] = {}
    for seq, _, pe, _, register, value, *_ in side.of(RecordKind.WRITE, stretch):
        if register not in REGISTERS:
            continue
        where = f"PE {pe}:" if stretch.apart else "a PE:"
        name = SysReg(register).name
        if register != SysReg.HDBSSBR_EL2:
            found.setdefault((where, name, _value(register, value, stretch.calm)), seq)
        elif stretch.kind is Kind.RUN:
            found.setdefault((where, name, buffers.value(stretch, value)), seq)
        elif not Hdbssbr(value).base:
            found.setdefault((where, name, f"no buffer, SZ={Hdbssbr(value).sz}"), seq)
        else:
            of_size = bases.setdefault((where, Hdbssbr(value).sz), {})
            of_size.setdefault(Hdbssbr(value).base, seq)
    for (where, sz), addresses in bases.items():
        first = min(addresses.values())
        found[where, SysReg.HDBSSBR_EL2.name, f"{len(addresses)} buffer(s) with SZ={sz}"] = first
    return list(found.items())


# --- bitmaps ------------------------------------------------------------------


class _Bitmaps:
    """What the program's lines told of pages, with what is still open from a FREE stretch."""

    def __init__(self, sides: tuple[Side, Side]) -> None:
        self._sides = sides
        self._open: dict[tuple[int, What], tuple[set[int], set[int]]] = {}
        self._sizes: dict[int, str | None] = {}

    def is_open(self, stretch: Stretch) -> bool:
        """Whether a line ends a union: it does what vCPUs that ran freely have left to do."""
        slots = {slot for slot, _ in self._open}
        return stretch.kind is Kind.STILL and any(
            operation.name not in ("vcpu", "pin")
            and operation.words[:1] in [(str(slot),) for slot in slots]
            for operation in stretch.operations
        )

    def differences(self, stretch: Stretch) -> Iterator[Difference]:
        """Compare the lines of a stretch, or keep them for the line that ends the union."""
        for operation in stretch.operations:
            self._forget(operation)
            told = [side.pages(operation.line) for side in self._sides]
            for key in sorted(told[0].keys() | told[1].keys()):
                pages = [_members(one.get(key, ())) for one in told]
                if stretch.kind is Kind.FREE:
                    ours, theirs = self._open.setdefault(key, (set(), set()))
                    ours |= pages[0]
                    theirs |= pages[1]
                    continue
                union = key in self._open
                ours, theirs = self._open.pop(key, (set(), set()))
                yield from _pages(operation, key, ours | pages[0], theirs | pages[1], union)

    def _forget(self, operation: Operation) -> None:
        """A union ends without a comparison where its slot, or what it compares with, is new."""
        match operation.name:
            case "vm" | "destroy":
                self._open.clear()
                self._sizes.clear()
            case "slot":
                slot, size = operation.subject(), operation.args.get("pages")
                if self._sizes.get(slot) != size:  # else it moves, and its bitmap with it
                    self._close(slot)
                self._sizes[slot] = size
            case "unslot":
                self._sizes.pop(operation.subject(), None)
                self._close(operation.subject())
            case "log" if "off" in operation.words:
                self._close(operation.subject())
            case "snapshot":
                self._open.pop((operation.subject(), What.CHANGED), None)

    def _close(self, slot: int) -> None:
        for what in What:
            self._open.pop((slot, what), None)


def _members(ranges: Iterable[tuple[int, int]]) -> set[int]:
    if sum(last - first + 1 for first, last in ranges) > MEMBERS_MAX:
        raise InfrastructureError(
            f"the agent's channel cannot be trusted: more than {MEMBERS_MAX} pages on one line"
        )
    return {page for first, last in ranges for page in range(first, last + 1)}


def _pages(
    operation: Operation, key: tuple[int, What], ours: set[int], theirs: set[int], union: bool
) -> Iterator[Difference]:
    slot, what = key
    if ours != theirs:
        page = min(ours ^ theirs)
        rule = "the same pages"
        if union:
            rule += ", together with what was told while vCPUs ran freely"
        text = [
            f"slot {slot}: {len(pages)} pages {what}, page {page} "
            f"{'is' if page in pages else 'is not'} among them"
            for pages in (ours, theirs)
        ]
        yield Difference("bitmaps", operation.line, rule, text[0], text[1])
