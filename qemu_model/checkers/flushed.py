# SPDX-License-Identifier: GPL-2.0-or-later
"""Was every entry that a flush consumed in the kernel's own dirty bitmap afterwards?

For a page that is lost this names the flush that lost it.  It stands on flushes.jsonl,
which has what the kernel's memory held when INDEX became 0, on the trace, and on what
the agent's reads of the log have reported.

Other PEs run on while a flush is looked at, so a bit that is 0 is no loss

- if a read or a clear of the log that overlaps the flush reported or cleared the page: it
  may have taken the bit that the flush had set;
- if the slot was deleted or its logging switched meanwhile, or if it was changed and may
  have another bitmap: one change, a move for instance, that has left it the bitmap of the
  flush's beginning took nothing;
- if the entry is still in the buffer when a PE next enters a guest with it, below INDEX:
  then it was put aside and not consumed.

A flush lasts from the kernel's first look at INDEX (without one: from the oldest of its
entries) to the moment at which the bitmap was looked at, with the PE standing still.  Its
ends are trace records of that PE around these moments, so that it rather overlaps too much.
"""

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from qemu_model.arch.registers import ENTRY_BYTES, HDBSSPROD_INDEX, SysReg, hdbss_base
from qemu_model.channel import Frame, Pages, Result, What
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History
from qemu_model.checkers.lost import SHOWN
from qemu_model.flushes import Flush, block_of
from qemu_model.model import injection
from qemu_model.pages import Ranges, count_pages, has_page
from qemu_model.program import Operation
from qemu_model.run import Run
from qemu_model.trace import FLAG_INDEX, Kind, RawRecord, describe

_READS = frozenset(("get", "clear", "precopy-round", "precopy-final"))
_ENDS = frozenset(("unslot", "log"))
"""What a slot's bitmap may not survive, so that nobody has to set bits in it any more."""
_EVERYTHING = frozenset(("vm", "destroy"))
_TAKEN = (What.REPORTED, What.CLEARED)
_NEVER = 1 << 62
# Plain numbers: these are compared with every record.
_APPEND, _MARK, _ENTRY = int(Kind.APPEND), int(Kind.MARK), int(Kind.ENTRY)
_INJECT = int(Kind.INJECT)
_RESET, _WRITE, _PROD = int(Kind.RESET), int(Kind.WRITE), int(SysReg.HDBSSPROD_EL2)
_HEAD = 4
"""Entries that are printed of each end of a buffer."""
Lost = tuple[int, int, int]
"""A frame that vanished: its number, its slot and its page there."""
Explain = Callable[[int], Divergence]
"""A finding that is told once it is known how many flushes there are like it."""
_RULE = "I3 (every slot below INDEX is consumed before INDEX is reset, and reaches the bitmap)"


@dataclass
class _Buffer:
    """What the PEs have appended at one address: entry and trace record by INDEX.

    -1 is an entry that nobody knows.
    """

    entries: list[int] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    beyond: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Those above the end of the lists: software can set INDEX to where nothing is below."""

    def put(self, index: int, entry: int, seq: int) -> None:
        if index < len(self.entries):
            self.entries[index], self.records[index] = entry, seq
        else:
            self.beyond[index] = entry, seq

    def forget(self, index: int) -> None:
        """Nobody knows what is in the slots below INDEX."""
        reach = min(index, len(self.entries))
        self.entries[:reach] = [-1] * reach
        for at, (_, seq) in self.beyond.items():
            if at < index:
                self.beyond[at] = -1, seq

    def below(self, index: int) -> tuple[list[int], list[int]]:
        """Entries and records of the slots below INDEX."""
        entries, records = self.entries[:index], self.records[:index]
        if self.beyond:
            for at in range(len(entries), index):
                entry, seq = self.beyond.get(at, (-1, 0))
                entries.append(entry)
                records.append(seq)
        return entries, records


@dataclass
class _Case:
    """A flush as the trace tells it, with what was written down about it."""

    flush: Flush
    reset: RawRecord
    """The MSR that made INDEX 0."""
    appended: list[int]
    records: list[int]
    page_shift: int
    until: int = _NEVER
    kept: int = 0
    """So many entries were still in the buffer when it was used again."""

    @property
    def since(self) -> int:
        known = [seq for seq in self.records if seq]
        return self.flush.began or min(known, default=0)

    def other(self) -> int | None:
        """The first place in the buffer where another entry was found than was appended."""
        if self.appended == self.flush.entries.tolist():
            return None
        pairs = zip(self.appended, self.flush.entries, strict=False)
        return next((i for i, (put, read) in enumerate(pairs) if put not in (-1, read)), None)


def check(run: Run, history: History) -> list[Divergence]:
    """One divergence for each flush that lost entries, up to SHOWN.

    What could not be seen is noted in ``history.unchecked``.
    """
    cases, unseen, marks = _cases(run)
    unmatched = len(unseen)
    agent = _Agent(run, marks)
    found: list[Explain] = []
    for case in cases:
        flush = case.flush
        if flush.number in run.flushes.late:
            unseen.append("the PE did not wait until it had been looked at")
            continue
        other = case.other()
        if other is not None and other < flush.noted:
            found.append(_other_buffer(run, case, other))
            continue
        if flush.error:
            unseen.append(flush.error)
            continue
        if other is not None:
            unseen.append("the kernel overwrote entries whose INDEX it had not read")
            continue
        lost = _lost(case, agent)
        if (first := next(lost, None)) is not None:
            found.append(_vanished(run, case, first, 1 + sum(1 for _ in lost)))
    if run.flushes.absent or run.flushes.cut:
        history.unchecked["flushed"] = run.flushes.absent or "flushes.jsonl has no end"
    if unseen:
        total = len(cases) + unmatched
        history.unchecked["flushed"] = f"{len(unseen)} of {total} flushes: {unseen[0]}"
    return [explain(len(found)) for explain in found[:SHOWN]]


_ABSENT = "nobody looked at it"


Marks = dict[tuple[int, int], int]
"""Trace record of the agent's markers, by program line and phase."""


def _cases(run: Run) -> tuple[list[_Case], list[str], Marks]:
    """The trace's flushes with what is known of them, and why nothing is known of others."""
    marks: Marks = {}
    lines = {operation.line for operation in run.program}
    waiting: dict[int, list[Flush]] = defaultdict(list)
    for flush in sorted(run.flushes.flushes, key=lambda f: f.seq, reverse=True):
        waiting[flush.pe].append(flush)
    cases: list[_Case] = []
    unseen: list[str] = []
    index: dict[int, int] = defaultdict(int)
    buffers: dict[int, _Buffer] = defaultdict(_Buffer)
    entered: dict[int, int] = {}
    open_ends: dict[int, deque[_Case]] = defaultdict(deque)
    """By PE, in the order in which their bitmaps were looked at."""
    consumed: dict[int, list[_Case]] = defaultdict(list)
    for record in run.trace or ():
        seq, kind, pe, flags, a, b, c, _, _, _ = record
        if open_ends and pe in open_ends:
            while open_ends[pe] and _ends(open_ends[pe][0], seq):
                open_ends[pe].popleft()
            if not open_ends[pe]:
                del open_ends[pe]
        if kind == _APPEND:
            at = flags & FLAG_INDEX
            index[pe] = at + 1
            buffer = buffers[c - ENTRY_BYTES * at]
            if at == len(buffer.entries):
                buffer.entries.append(b)
                buffer.records.append(seq)
            else:
                buffer.put(at, b, seq)
        elif kind == _MARK:
            if a >> 1 in lines:  # a guest can execute the agent's instruction with any x0
                marks.setdefault((a >> 1, a & 1), seq)
        elif kind == _ENTRY:
            index[pe] = b & HDBSSPROD_INDEX.mask
            entered[pe] = hdbss_base(a)
            for case in consumed.pop(entered[pe], ()):
                case.kept = index[pe]
        elif kind == _INJECT and a == injection.What.INDEX:
            index[pe] = record[7] & HDBSSPROD_INDEX.mask
            buffers[entered.get(pe, 0)].forget(index[pe])
        elif kind == _RESET:
            index[pe] = b & HDBSSPROD_INDEX.mask
            entered.pop(pe, None)
        elif kind == _WRITE and a == _PROD:
            before, index[pe] = index[pe], c & HDBSSPROD_INDEX.mask
            if not before or index[pe] or pe not in entered:
                continue
            if not waiting[pe] or waiting[pe][-1].seq > seq:
                unseen.append(_ABSENT)
                continue
            flush = waiting[pe].pop()
            buffer = buffers[flush.base]
            if flush.index != before or entered.get(pe, flush.base) != flush.base:
                unseen.append(f"it is none of flushes.jsonl: trace record {seq}")
                continue
            put = buffer.below(min(before, len(flush.entries)))
            case = _Case(flush, record, *put, run.flushes.page_shift)
            cases.append(case)
            consumed[flush.base].append(case)
            if not _ends(case, seq):
                open_ends[pe].append(case)
    return cases, unseen, marks


def _ends(case: _Case, seq: int) -> bool:
    """Whether the PE's record ``seq`` is its first one after the bitmap was looked at."""
    if seq < case.flush.seen:
        return False
    case.until = seq
    return True


@dataclass(frozen=True)
class _Window:
    begin: int
    end: int
    operation: Operation
    failed: bool
    pages: tuple[Ranges, ...]


class _Agent:
    """What the agent did to the log while the PEs ran, by trace record."""

    def __init__(self, run: Run, marks: Marks) -> None:
        frames: dict[int, list[Frame]] = defaultdict(list)
        for frame in run.observations.frames:
            frames[frame.line].append(frame)
        self._windows = [
            _window(operation, marks, frames.get(operation.line, []))
            for operation in run.program
            if operation.name in _READS | _ENDS | _EVERYTHING | {"slot"}
            and operation.line in frames
        ]

    def took(self, slot: int, page: int, since: int, until: int, same: bool) -> bool:
        """Whether something that overlaps these records may have taken the page's bit.

        ``same``: the slot has the bitmap that it had in the beginning.
        """
        changes = 0
        for window in self._windows:
            if window.begin >= until or window.end <= since:
                continue
            name = window.operation.name
            if name in _EVERYTHING:
                return True
            if window.operation.subject() != slot:
                continue
            if name == "slot":
                changes += 1
            elif (
                name in _ENDS
                or window.failed
                or any(has_page(ranges, page) for ranges in window.pages)
            ):
                return True
        return changes > (1 if same else 0)


def _window(operation: Operation, marks: Marks, frames: list[Frame]) -> _Window:
    """A marker that is missing is replaced by one of another line: lines go one by one."""
    line = operation.line
    result = next((frame for frame in frames if isinstance(frame, Result)), None)
    return _Window(
        marks.get((line, 0)) or max((s for (at, _), s in marks.items() if at < line), default=0),
        marks.get((line, 1))
        or min((s for (at, _), s in marks.items() if at > line), default=_NEVER),
        operation,
        result is None or result.ret < 0,
        tuple(f.ranges for f in frames if isinstance(f, Pages) and f.what in _TAKEN),
    )


def _lost(case: _Case, agent: _Agent) -> Iterator[Lost]:
    """What vanished in a flush."""
    flush = case.flush
    slots = sorted((slot for slot in flush.slots if slot[3]), key=lambda slot: slot[1])
    starts = [slot[1] for slot in slots]
    if not flush.clean:
        return
    since = case.since
    kept = {
        block
        for entry in flush.entries[: case.kept]
        if (block := block_of(entry, case.page_shift)) is not None
    }
    widths = {width for width, _ in kept}
    for first, last in flush.clean:
        for frame in range(first, last + 1):
            at = bisect_right(starts, frame) - 1
            if at < 0 or frame >= starts[at] + slots[at][2]:
                continue
            number, page = slots[at][0], frame - starts[at]
            if agent.took(number, page, since, case.until, slots[at][4]):
                continue
            if any((width, frame >> width) in kept for width in widths):
                continue
            yield frame, number, page


def _covers(entry: int, frame: int, page_shift: int) -> bool:
    block = block_of(entry, page_shift)
    return block is not None and frame >> block[0] == block[1]


def _vanished(run: Run, case: _Case, first: Lost, pages: int) -> Explain:
    """The first of so many pages that a flush lost."""
    flush = case.flush
    frame, slot, page = first

    def explain(flushes: int) -> Divergence:
        position = next(
            (i for i, e in enumerate(flush.entries) if _covers(e, frame, case.page_shift)), 0
        )
        before = has_page(flush.before, frame)
        append = case.records[position] if position < len(case.records) else 0
        entry = flush.entries[position] if position < len(flush.entries) else 0
        return Divergence(
            checker="flushed",
            summary=f"flush {flush.number} (PE {flush.pe}, at {flush.place}) lost page {page} of "
            f"slot {slot} ({pages} pages in this flush, {flushes} such flushes)",
            rule=_RULE,
            required=f"bit {page} of the slot's dirty bitmap is 1 when INDEX, which was "
            f"{flush.index}, has become 0: entry {position} of the buffer is {entry:#x}",
            seen=f"the bit was {int(before)} before and 0 after; {_held(case.flush)}",
            slot=slot,
            page=page,
            records=(*_shown(run, append), describe(case.reset)),
        )

    return explain


def _shown(run: Run, seq: int) -> tuple[str, ...]:
    """A trace record in words; nothing for 0."""
    if not seq or run.trace is None:
        return ()
    return (describe(run.trace.record(seq)),)


def _held(flush: Flush) -> str:
    """The buffer's two ends, and how many bits of the bitmap became what."""
    words = [f"{entry:#x}" for entry in flush.entries]
    if len(words) > 2 * _HEAD:
        words[_HEAD:-_HEAD] = [".."]
    return (
        f"buffer at {flush.base:#x}: {' '.join(words)}; of its pages "
        f"{count_pages(flush.before)} were set in the bitmap before and all but "
        f"{count_pages(flush.clean)} after"
    )


def _other_buffer(run: Run, case: _Case, at: int) -> Explain:
    flush = case.flush

    def explain(flushes: int) -> Divergence:
        return Divergence(
            checker="flushed",
            summary=f"flush {flush.number} (PE {flush.pe}, at {flush.place}) did not find in the "
            f"buffer what the PE had appended ({flushes} such flushes)",
            rule="I2 (between append and flush the buffer is the PE's)",
            required=f"entry {at} of the buffer at {flush.base:#x} is {case.appended[at]:#x}",
            seen=f"it is {flush.entries[at]:#x}",
            records=(*_shown(run, case.records[at]), describe(case.reset)),
        )

    return explain
