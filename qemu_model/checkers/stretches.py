# SPDX-License-Identifier: GPL-2.0-or-later
"""A program cut into stretches, and what in each of them is not left to timing.

A stretch is one line of the program, or all lines from the ``start`` of a payload until
no vCPU runs any more.  Everything here follows from the program's text alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from qemu_model.errors import UsageError
from qemu_model.program import PAGE, Operation, Program

_MAKES_CLEAN = frozenset(
    ("get", "clear", "precopy", "precopy-round", "precopy-final", "log", "slot", "unslot",
     "hdbss", "enable-cap")
)  # fmt: skip
"""Operations after which a page that was dirty may be appended again."""
_NEW_BUFFERS = frozenset(
    ("vm", "vcpu", "create", "created", "hdbss", "enable-cap", "log", "slot", "unslot", "destroy")
)
"""Operations at which a kernel may allocate or free buffers."""
_STORES = ("stride", "random", "atomic")
_WORD = (1 << 64) - 1
_STORES_MAX = 1 << 22
"""Stores of one pass; the largest program of the catalogue does 266240."""


class Kind(Enum):
    """What runs during a stretch."""

    STILL = "no vCPU runs"
    RUN = "one vCPU runs its payload once, and the agent waits for it"
    FREE = "vCPUs run while the program goes on"


@dataclass(frozen=True)
class Payload:
    """One ``run`` or ``start`` of a stretch."""

    vcpu: int
    pages: frozenset[int]
    """IPA / 4096 of every page that it can store to; only for stretches that are FREE."""
    pinned: bool
    """The vCPU stays on one CPU for the whole of the stretch."""


@dataclass(frozen=True)
class Stretch:
    """Some lines of a program, and what of them two runs must have in common."""

    kind: Kind
    operations: tuple[Operation, ...]
    payloads: tuple[Payload, ...]
    calm: bool = False
    """RUN: nothing preempts the vCPU, so that buffers fill up at the same entry."""
    warm: bool = False
    """RUN: the vCPU has run since its CPU became its own, so that loading and unloading it
    are the same steps each time."""
    apart: bool = False
    """FREE: the vCPUs and the agent are pinned, and no vCPU has the agent's CPU."""
    once: bool = True
    """Nothing makes dirty pages clean, so that each page is appended at most once."""
    buffers: int = 0
    """Counts the times at which a kernel may have got other buffers."""

    @property
    def lines(self) -> tuple[int, int]:
        """First and last line."""
        return self.operations[0].line, self.operations[-1].line

    def pe_counts(self, ipa: int) -> bool:
        """Whether only one CPU can have stored to the page at ``ipa``."""
        if self.kind is Kind.RUN:
            return self.payloads[0].pinned
        owners = [payload for payload in self.payloads if ipa // PAGE in payload.pages]
        return len({p.vcpu for p in owners}) == 1 and all(p.pinned for p in owners)


def cut(program: Program) -> list[Stretch]:
    """The stretches of a program, in its order; every line is in one of them."""
    return list(_Planner().plan(program))


def stored_pages(operation: Operation) -> frozenset[int]:
    """IPA / 4096 of every page that a payload can store to; UsageError for absurd programs."""
    kind = operation.words[1] if len(operation.words) > 1 else ""
    if kind not in _STORES:
        return frozenset()
    gpa = operation.number("gpa")
    stores = operation.number("count") * operation.number("ocount", 1)
    if not 0 <= stores * max(operation.number("loops", 1), 1) <= _STORES_MAX:
        raise UsageError(f"program line {operation.line}: more than {_STORES_MAX} stores")
    if kind == "random":
        return frozenset(gpa // PAGE + page for page in _random_pages(operation))
    start = gpa + operation.number("offset", 8 * operation.number("lane", 0))
    inner = range(operation.number("count"))
    outer = range(operation.number("ocount", 1))
    stride, ostride = operation.number("stride"), operation.number("ostride", 0)
    return frozenset((start + o * ostride + i * stride) // PAGE for o in outer for i in inner)


def _random_pages(operation: Operation) -> Iterator[int]:
    """The generator of the agent's payload (xorshift64)."""
    seed, pages = operation.number("seed"), operation.number("pages")
    for _ in range(operation.number("count") * max(operation.number("loops", 1), 1)):
        seed ^= seed << 13 & _WORD
        seed ^= seed >> 7
        seed ^= seed << 17 & _WORD
        yield seed % max(pages, 1)


@dataclass
class _Vcpu:
    """What is known about a vCPU's thread."""

    cpu: int | None = None
    fifo: bool = False
    ran: bool = False
    """It has run since anything was pinned or created."""


class _Planner:
    """Walks a program and knows who is pinned and who runs."""

    def __init__(self) -> None:
        self._vcpus: dict[int, _Vcpu] = {}
        self._agent: int | None = None
        self._running: set[tuple[str, int]] = set()
        """What goes on beside the program: ("start" or "create", vCPU)."""
        self._cap = False
        self._buffers = 0

    def plan(self, program: Program) -> Iterator[Stretch]:
        """Yield the stretches."""
        free: list[Operation] = []
        for operation in program:
            if operation.name == "uapi":
                self._cap = operation.number("cap") != 0
            if operation.name in ("start", "create"):
                self._running.add((operation.name, operation.subject()))
            if free or self._running:
                free.append(operation)
                self._note(operation)
                if not self._running:
                    yield self._free(free)
                    free = []
                continue
            if operation.name == "run":
                yield self._run(operation)
            else:
                yield Stretch(Kind.STILL, (operation,), (), buffers=self._buffers)
            self._note(operation)
        if free:
            yield self._free(free)

    def _note(self, operation: Operation) -> None:
        name = operation.name
        if name in _NEW_BUFFERS:
            self._buffers += 1
        match name:
            case "vm" | "destroy":
                self._vcpus.clear()
                self._running.clear()
            case "vcpu" | "create":
                self._vcpus[operation.subject()] = _Vcpu()
                self._forget_runs()
            case "pin":
                if "agent" in operation.words:
                    self._agent = operation.number("cpu")
                else:
                    vcpu = self._vcpu(operation.number("vcpu"))
                    vcpu.cpu, vcpu.fifo = operation.number("cpu"), "fifo" in operation.words
                    self._forget_runs()
            case "run" | "start":
                self._vcpu(operation.subject()).ran = True
            case "wait" | "stop":
                self._running.discard(("start", operation.subject()))
            case "created":
                self._running.discard(("create", operation.subject()))

    def _forget_runs(self) -> None:
        for vcpu in self._vcpus.values():
            vcpu.ran = False

    def _vcpu(self, number: int) -> _Vcpu:
        return self._vcpus.setdefault(number, _Vcpu())

    def _cpu(self, operation: Operation) -> int | None:
        vcpu = self._vcpus.get(operation.subject())
        return None if vcpu is None else vcpu.cpu

    def _run(self, operation: Operation) -> Stretch:
        number = operation.subject()
        vcpu = self._vcpus.get(number, _Vcpu())
        pinned = vcpu.cpu is not None
        others = [other.cpu for key, other in self._vcpus.items() if key != number]
        return Stretch(
            Kind.RUN,
            (operation,),
            (Payload(number, frozenset(), pinned),),
            calm=pinned and vcpu.fifo and self._cap,
            warm=pinned and vcpu.ran and None not in others and vcpu.cpu not in others,
            buffers=self._buffers,
        )

    def _free(self, operations: list[Operation]) -> Stretch:
        moved = {o.number("vcpu") for o in operations
                 if o.name == "pin" and "agent" not in o.words}  # fmt: skip
        agent_moves = any(o.name == "pin" and "agent" in o.words for o in operations)
        payloads = tuple(
            Payload(
                operation.subject(),
                stored_pages(operation),
                self._cpu(operation) is not None and operation.subject() not in moved,
            )
            for operation in operations
            if operation.name in ("run", "start")
        )
        cpus = {self._cpu(o) for o in operations if o.name in ("run", "start")}
        return Stretch(
            Kind.FREE,
            tuple(operations),
            payloads,
            apart=bool(payloads)
            and all(payload.pinned for payload in payloads)
            and self._agent is not None
            and not agent_moves
            and self._agent not in cpus,
            once=not any(operation.name in _MAKES_CLEAN for operation in operations),
            buffers=self._buffers,
        )
