# SPDX-License-Identifier: GPL-2.0-or-later
"""Holding CPUs: races on demand, as a list of steps that are taken one after the other.

Each step lets some CPUs run until something happens; then everything stands still and
the next step begins.  For example::

    Await("get"),                                   # all run
    Let(1, reach="__guest_exit", pending=True),     # CPU 1 runs alone, the others are held
    Let(0, reach="on_each_cpu_cond_mask"),          # CPU 0 runs alone, CPU 1 is held
    Release(),                                      # all run again

CPUs are numbered as the kernel and QEMU number them.  A place is SYMBOL or SYMBOL+OFFSET
of vmlinux.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from qemu_model.errors import UsageError


@dataclass(frozen=True)
class Event:
    """What ends a step: the first of those that are given.

    ``reach``: CPU ``cpu`` arrives at that place for the ``nth`` time within the step;
    with ``pending`` it only counts while its PE has HDBSS entries in its buffer.
    ``reported``: the agent has done an operation of that name, for the ``nth`` time within
    the step.  ``steps``: so many instructions of ``cpu``.
    """

    cpu: int = 0
    reach: str = ""
    reported: str = ""
    steps: int = 0
    nth: int = 1
    pending: bool = False


@dataclass(frozen=True)
class Await:
    """All CPUs run until the agent has reported an operation of that name."""

    reported: str
    nth: int = 1

    @property
    def event(self) -> Event:
        """What ends it."""
        return Event(reported=self.reported, nth=self.nth)

    def __str__(self) -> str:
        return f"all run until the agent has reported {self.reported}{_nth(self.nth)}"


@dataclass(frozen=True)
class Hold:
    """All CPUs run until one of them reaches a place."""

    cpu: int
    at: str
    nth: int = 1
    pending: bool = False

    @property
    def event(self) -> Event:
        """What ends it."""
        return Event(self.cpu, reach=self.at, nth=self.nth, pending=self.pending)

    def __str__(self) -> str:
        return f"all run until CPU {self.cpu} reaches {self.at}{_pending(self)}{_nth(self.nth)}"


@dataclass(frozen=True)
class Let:
    """One CPU runs alone, all others are held, until the first of what is given."""

    cpu: int
    reach: str = ""
    reported: str = ""
    steps: int = 0
    nth: int = 1
    pending: bool = False

    @property
    def event(self) -> Event:
        """What ends it."""
        return Event(self.cpu, self.reach, self.reported, self.steps, self.nth, self.pending)

    def __str__(self) -> str:
        ends = []
        if self.reach:
            ends.append(f"it reaches {self.reach}{_pending(self)}")
        if self.reported:
            ends.append(f"the agent has reported {self.reported}")
        if self.steps:
            ends.append(f"{self.steps} instructions are done")
        return f"CPU {self.cpu} runs alone until {' or '.join(ends)}{_nth(self.nth)}"


@dataclass(frozen=True)
class Release:
    """All CPUs run again."""

    def __str__(self) -> str:
        return "all are released"


Step = Await | Hold | Let | Release


def _nth(nth: int) -> str:
    return f" ({nth} times)" if nth > 1 else ""


def _pending(step: Hold | Let) -> str:
    return " with entries pending" if step.pending else ""


def require_order(steps: Sequence[Step], cpus: int, operations: Collection[str]) -> None:
    """Check a list before anything runs; UsageError names the step that cannot be.

    ``cpus`` is the number of the machine's CPUs, ``operations`` are the names of those in
    the agent's program.
    """
    held = False
    for number, step in enumerate(steps, 1):
        where = f"step {number} of the holds ({step})"
        if isinstance(step, Release):
            if not held:
                raise UsageError(f"{where}: nobody is held there")
            held = False
            continue
        if held and not isinstance(step, Let):
            raise UsageError(f"{where}: CPUs are held there; release them before all can run")
        held = not isinstance(step, Await)
        event = step.event
        if not 0 <= event.cpu < cpus:
            raise UsageError(f"{where}: the machine has CPUs 0 to {cpus - 1}")
        if not (event.reach or event.reported or event.steps):
            raise UsageError(f"{where}: it has no end")
        if event.nth < 1 or event.steps < 0:
            raise UsageError(f"{where}: counts begin with 1")
        if event.steps and (event.reach or event.reported):
            raise UsageError(f"{where}: count instructions, or name an end, not both")
        if event.reported and event.reported not in operations:
            raise UsageError(f"{where}: the agent's program has no operation {event.reported}")
    if held:
        raise UsageError(f"the holds end with CPUs held: add a release after step {len(steps)}")
