# SPDX-License-Identifier: GPL-2.0-or-later
"""What a scenario is, and the script that its author writes it with."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from qemu_model.program import PAGE, Program
from qemu_model.scenarios.holds import Step

T = TypeVar("T")

SLOT_GPA = 0x4000_0000
"""Guest physical address at which the slots of the catalogue start."""
PATIENCE = 5000
"""Milliseconds for a payload that takes some tens of them: a guest that gets nowhere is told."""


@dataclass(frozen=True)
class Uapi:
    """How userspace drives the kernel's HDBSS.

    ``cap``: KVM_ENABLE_CAP with ``number``; ``auto``: the kernel switches it on with
    dirty logging; ``none``: plain write protection.
    """

    style: str
    number: int = 0

    def __str__(self) -> str:
        return f"cap:{self.number}" if self.style == "cap" else self.style


@dataclass(frozen=True)
class Needs:
    """The machine that a scenario runs on."""

    cpus: int = 2
    memory: int = 512
    """RAM in MiB."""
    feature: bool = True
    """Whether the PEs have FEAT_HDBSS."""
    cmdline: str = ""
    """Added to the kernel's command line."""
    symbol: str = ""
    """A symbol that its kernel has if it is built with what the scenario uses."""
    config: str = ""
    """The options that bring the symbol, for those who wonder why a scenario is skipped."""


LEAK = Needs.memory // 2
"""MiB of which it shows that they have been lost; a kernel may have as much for itself."""
_REST_GPA = 0x8_0000_0000
_REST_PAGES = (Needs.memory - LEAK - 32) * 256
"""With the 32 MiB that the agent leaves to others this is the other half of the memory: it is
there only if nothing was lost."""


@dataclass(frozen=True)
class Scenario:
    """A named program for the agent, and what it is for.

    ``catches`` names the fault of a kernel that makes it fail.
    """

    name: str
    purpose: str
    catches: str
    write: Callable[["Script"], None]
    needs: Needs = Needs()
    styles: tuple[str, ...] = ("cap", "auto", "none")
    """The ways of driving HDBSS with which the scenario means something."""
    not_in_gdb: str = ""
    """Why it cannot run in gdb mode, if it cannot."""
    holds: tuple[Step, ...] = ()
    """How CPUs are held in its course; such a scenario runs in gdb mode only."""
    inject: tuple[str, ...] = ()
    """What goes wrong in its course, as ``model.injection`` reads it."""

    def program(self, uapi: Uapi, seed: int, small: bool = False) -> Program:
        """The program for one run; the same seed and form give the same text.

        The small form means the same with some hundred entries, for an interceptor that
        stops the machine at each of them.
        """
        script = Script(uapi, random.Random(f"{self.name}/{seed}"), small)
        script.program.add("uapi", cap=uapi.number if uapi.style == "cap" else 0)
        form = " (small form)" if small else ""
        script.program.comment(f"{self.name}{form}: {self.purpose}")
        self.write(script)
        return script.program


class Script:
    """A program being written; one method per thing that scenarios do again and again."""

    def __init__(self, uapi: Uapi, rng: random.Random, small: bool = False) -> None:
        self.uapi = uapi
        self.rng = rng
        self.small = small
        self.program = Program()
        self._value = rng.randrange(1, 1 << 16)

    def __call__(self, name: str, *words: object, **args: object) -> None:
        """Append one operation; ``expect`` is what its result must say, not an argument."""
        self.program.add(name, *words, **args)

    def size(self, normal: T, small: T) -> T:
        """What the form of the program needs: a number of pages, of rounds, a list of them."""
        return small if self.small else normal

    def value(self) -> int:
        """A value that differs from the last 254 ones, also in its low byte, which is never 0."""
        self._value += 1
        return (self._value << 32) | (1 + self._value % 255)

    def vm(self, pages: int, *, memory: str = "anon", dirty: str = "plain", vcpus: int = 1) -> None:
        """A VM with ``vcpus`` vCPUs and slot 0 of ``pages`` pages, not logged yet."""
        self("vm", dirty=dirty)
        for vcpu in range(vcpus):
            self("vcpu", vcpu)
        self("slot", 0, gpa=hex(SLOT_GPA), pages=pages, mem=memory)

    def hdbss_on(self, order: int) -> None:
        """Switch HDBSS on where userspace does that."""
        if self.uapi.style == "cap":
            self("hdbss", "on", order=order)

    def hdbss_off(self) -> None:
        """Switch HDBSS off where userspace does that."""
        if self.uapi.style == "cap":
            self("hdbss", "off")

    def stride(
        self, count: int, *, first: int = 0, step: int = 1, vcpu: int = 0, **args: object
    ) -> None:
        """Run a payload that stores to ``count`` pages of slot 0, every ``step``-th page."""
        self.payload("run", "stride", vcpu, count, first=first, step=step, **args)

    def payload(
        self, verb: str, kind: str, vcpu: int, count: int, *, first: int = 0, step: int = 1,
        **args: object,
    ) -> None:  # fmt: skip
        """``run`` or ``start`` a payload over pages ``first``, ``first + step``.. of slot 0."""
        if kind in ("stride", "atomic"):
            args.setdefault("value", self.value())
        gpa = hex(SLOT_GPA + first * PAGE)
        self(verb, vcpu, kind, gpa=gpa, count=count, stride=step * PAGE, **args)

    def harvest(self, slot: int = 0, changed: int | None = None) -> None:
        """With the vCPUs out of the guest: what has changed, then what the kernel reports.

        ``changed`` is the number of pages that were stored to: who drops a store when it is
        refused has nothing to report.
        """
        self("compare", slot, expect=None if changed is None else f"ret=0 changed={changed}")
        self("get", slot)

    def harvest_running(self, slot: int = 0) -> None:
        """The same under a running guest; what changes after the read is told from before."""
        self.harvest(slot)
        self("compare", slot)

    def settle(self, *pages: int, slot: int = 0) -> None:
        """In the small form, let endless payloads store to all their pages once more.

        ``pages`` are those that each payload stores to last.  A pass takes longer than what
        the program does between two reads where every entry stops the machine, and what such
        a run has appended by then would be chance.
        """
        if self.small:
            for _ in range(2):
                self("compare", slot)
                for page in pages:
                    self("await", slot, page=page)

    def nothing_leaked(self) -> None:
        """Demand that LEAK MiB, which may have been lost, have not been.

        A slot without use, in a VM on a machine with the usual memory.
        """
        self("slot", 126, gpa=hex(_REST_GPA), pages=_REST_PAGES, mem="anon")
        self("unslot", 126)

    def reaches(self, *conditions: str, always: bool = False) -> None:
        """What the trace must show; about HDBSS, so dropped where the kernel has none."""
        if always or self.uapi.style != "none":
            self.program.reaches(*conditions)
