# SPDX-License-Identifier: GPL-2.0-or-later
"""One of two runs that are compared: its records and its frames by program line."""

from array import array
from collections.abc import Iterator

from qemu_model.channel import Frame, Pages, Result, What
from qemu_model.checkers.stretches import Stretch
from qemu_model.run import Run
from qemu_model.trace import Kind, RawRecord, describe

_AROUND = 3
"""Records that are shown before and after the one that differs."""
_KEPT = (
    *(Kind.APPEND, Kind.REFUSE, Kind.WRITE, Kind.ANOMALY),
    *(Kind.INJECT, Kind.LOST, Kind.LATE),
)


class Side:
    """One of the two runs: its records by line, its frames by line."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.frames: dict[int, list[Frame]] = {}
        for frame in run.observations.frames:
            self.frames.setdefault(frame.line, []).append(frame)
        self.marks: dict[int, int] = {}
        self.records: dict[tuple[Kind, int], array[int]] = {}
        self.entries = 0
        last = max((operation.line for operation in run.program), default=0)
        line, phase = 0, 0
        for seq, kind, _pe, _flags, a, *_ in run.trace or ():
            if kind == Kind.MARK:
                line, phase = a >> 1, a & 1
                self.marks.setdefault(line, seq)
            elif kind in _KEPT and line:
                self.entries += kind == Kind.APPEND
                if kind == Kind.WRITE and line >= last and phase:
                    continue  # how far the machine gets in going down
                key = Kind(kind), line
                self.records.setdefault(key, array("Q")).append(seq)

    def of(self, kind: Kind, stretch: Stretch) -> Iterator[RawRecord]:
        """The records of a kind that belong to a stretch, in order."""
        for operation in stretch.operations:
            for seq in self.records.get((kind, operation.line), ()):
                yield self.record(seq)

    def record(self, seq: int) -> RawRecord:
        """The record of that number."""
        assert self.run.trace is not None
        return self.run.trace.record(seq)

    def around(self, seq: int | None, stretch: Stretch) -> tuple[str, ...]:
        """The records around one, or those at the stretch's beginning, in words."""
        trace = self.run.trace
        if trace is None:
            return ()
        middle = seq or self.marks.get(stretch.lines[0], 0)
        if not middle:
            return ()
        first, last = max(middle - _AROUND, 1), min(middle + _AROUND, trace.count)
        return tuple(
            ("> " if number == seq else "  ") + describe(self.record(number))
            for number in range(first, last + 1)
        )

    def result(self, line: int) -> Result | None:
        """The result of a line; None if the agent never got there."""
        return next((f for f in self.frames.get(line, ()) if isinstance(f, Result)), None)

    def pages(self, line: int) -> dict[tuple[int, What], frozenset[tuple[int, int]]]:
        """The sets of pages that a line told, as disjoint ranges."""
        found: dict[tuple[int, What], list[tuple[int, int]]] = {}
        for frame in self.frames.get(line, ()):
            if isinstance(frame, Pages):
                found.setdefault((frame.slot, frame.what), []).extend(frame.ranges)
        return {key: frozenset(ranges) for key, ranges in found.items()}
