# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes the steps of a scenario's holds, one after the other, on a running machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from qemu_model.errors import UsageError
from qemu_model.gdbstub.mi import Gdb, Stop
from qemu_model.gdbstub.pes import EmulatedPe
from qemu_model.program import Program
from qemu_model.scenarios.holds import Event, Let, Release, Step, require_order

STEP_LIMIT = 60.0
"""Seconds that a step may take."""


class Holding:
    """The state of one list of steps.

    ``place`` gives the address of SYMBOL[+OFFSET] (UsageError if there is none), ``name``
    the reverse.  ``taken`` is told of each step that is done.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        program: Program,
        cpus: int,
        place: Callable[[str], int],
        name: Callable[[int], str],
    ) -> None:
        operations = {op.line: op.name for op in program}
        require_order(steps, cpus, set(operations.values()))
        self._steps = tuple(steps)
        self._operations = operations
        self._name = name
        self._places = {
            step.event.reach: place(step.event.reach)
            for step in steps
            if not isinstance(step, Release) and step.event.reach
        }
        self._at = 0
        self._left = 0
        self._since = 0.0
        self.taken: list[str] = []
        self.report: str | None = None
        """Where everybody stood when a step did not end."""

    def require_apart(self, sites: Callable[[int], bool]) -> None:
        """UsageError for a place at which the interceptor itself has to act."""
        for text, address in self._places.items():
            if sites(address):
                raise UsageError(
                    f"{text} is a place of the interceptor's own; hold an instruction later"
                )

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self._at >= len(self._steps)

    @property
    def event(self) -> Event | None:
        """What the present step waits for."""
        step = None if self.done else self._steps[self._at]
        return None if step is None or isinstance(step, Release) else step.event

    def prepare(self, gdb: Gdb) -> None:
        """Make the breakpoints, all disabled."""
        gdb.breakpoints(self._places.values(), enabled=False)

    # --- events -------------------------------------------------------------------

    def arrived(self, stop: Stop, pe: EmulatedPe) -> bool:
        """Whether this stop, at an address of ours, ends the step."""
        event = self.event
        if event is None or not event.reach or self._places[event.reach] != stop.pc:
            return False
        if pe.index != event.cpu or (event.pending and not pe.pending):
            return False
        return self._counted()

    def ours(self, address: int) -> bool:
        """Whether a breakpoint at that address may be one of ours."""
        return address in self._places.values()

    def reported(self, mark: int) -> bool:
        """Whether the agent's marker (``MARK.a`` of the trace) ends the step."""
        event = self.event
        if event is None or not event.reported or not mark & 1:
            return False
        return self._operations.get(mark >> 1) == event.reported and self._counted()

    def _counted(self) -> bool:
        self._left -= 1
        return self._left <= 0

    # --- steps --------------------------------------------------------------------

    def begin(self, gdb: Gdb) -> Event | None:
        """Set the machine up for the present step; it stands still.

        Returns the event of a step that is a number of instructions: the caller executes
        them.
        """
        self._since = time.monotonic()
        if self.done:
            gdb.go_alone(None)
            return None
        step = self._steps[self._at]
        alone = step.cpu if isinstance(step, Let) else None
        gdb.go_alone(None if alone is None else alone + 1)
        event = self.event
        if event is None:
            return None
        self._left = event.nth
        if event.reach:
            gdb.enable([self._places[event.reach]], True)
        return event if event.steps else None

    def end(self, gdb: Gdb, seq: int) -> bool:
        """The present step is done (at trace record ``seq``); whether the next one is set up.

        Releases count as done at once.
        """
        event = self.event
        if event is not None and event.reach:
            gdb.enable([self._places[event.reach]], False)
        self.taken.append(f"record {seq}: {self._steps[self._at]}")
        self._at += 1
        if self.done or not isinstance(self._steps[self._at], Release):
            return not self.done
        return self.end(gdb, seq)

    # --- what goes wrong ----------------------------------------------------------

    def overdue(self) -> bool:
        """Whether the present step takes too long."""
        return not self.done and time.monotonic() - self._since > STEP_LIMIT

    def describe(self, gdb: Gdb, cpus: int) -> str:
        """Where every CPU stands, and what was waited for; the machine must be stopped."""
        lines = [f"step {self._at + 1} of {len(self._steps)} did not end: {self._steps[self._at]}"]
        for cpu in range(cpus):
            (pc,) = gdb.read("pc", thread=cpu + 1)
            lines.append(f"CPU {cpu} stands at {self._name(pc)}")
        lines += [f"before: {text}" for text in self.taken]
        return "; ".join(lines)

    def unfinished(self) -> str | None:
        """Why the scenario did not happen, once the machine has ended."""
        if self.report is not None:
            return self.report
        if self.done:
            return None
        step = self._steps[self._at]
        return f"the machine ended before step {self._at + 1} of the holds: {step}"
