# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of a scenario's holds, on a gdb that only writes down what it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from qemu_model.errors import UsageError
from qemu_model.gdbstub import holding as holding_module
from qemu_model.gdbstub.holding import Holding
from qemu_model.gdbstub.mi import Gdb, Stop
from qemu_model.gdbstub.pes import EmulatedPe
from qemu_model.program import Program
from qemu_model.scenarios.holds import Await, Hold, Let, Release, Step

PLACES = {"f": 0x1000, "g": 0x2000}
NAMES = {address: name for name, address in PLACES.items()}


@dataclass
class FakeGdb:
    """What ``Holding`` needs of a Gdb."""

    asked: list[str] = field(default_factory=list)
    pcs: dict[int, int] = field(default_factory=dict)

    def breakpoints(self, addresses: list[int], enabled: bool) -> None:
        self.asked.append(f"breakpoints {sorted(set(addresses))} {enabled}")

    def enable(self, addresses: list[int], enabled: bool) -> None:
        self.asked.append(f"{'enable' if enabled else 'disable'} {addresses[0]:#x}")

    def go_alone(self, thread: int | None) -> None:
        self.asked.append("all" if thread is None else f"only thread {thread}")

    def read(self, register: str, thread: int) -> tuple[int]:
        assert register == "pc"
        return (self.pcs[thread],)

    def told(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


@dataclass
class FakePe:
    """A PE with or without entries."""

    index: int
    pending: bool = False


def place(text: str) -> int:
    if text not in PLACES:
        raise UsageError(f"there is no symbol {text}")
    return PLACES[text]


def make(*steps: Step, cpus: int = 2) -> tuple[Holding, FakeGdb]:
    program = Program()
    program.add("start", 0, "stride", gpa=0, count=1, stride=1, value=1)
    program.add("get", 0)
    program.add("get", 0)
    return Holding(steps, program, cpus, place, lambda a: NAMES.get(a, hex(a))), FakeGdb()


def arrives(holding: Holding, address: int, cpu: int, pending: bool = False) -> bool:
    stop = Stop(cpu + 1, address, "breakpoint-hit")
    return holding.arrived(stop, cast(EmulatedPe, FakePe(cpu, pending)))


def begin(holding: Holding, gdb: FakeGdb) -> object:
    return holding.begin(cast(Gdb, gdb))


def end(holding: Holding, gdb: FakeGdb, seq: int) -> bool:
    return holding.end(cast(Gdb, gdb), seq)


def test_one_after_the_other() -> None:
    holding, gdb = make(
        Await("get"), Hold(0, at="f"), Let(1, reach="g", pending=True, nth=2), Release()
    )
    holding.prepare(cast(Gdb, gdb))
    assert gdb.told() == ["breakpoints [4096, 8192] False"]

    assert begin(holding, gdb) is None
    assert gdb.told() == ["all"]
    assert not holding.reported(2 << 1)  # begins
    assert not holding.reported(1 << 1 | 1)  # another operation
    assert not holding.reported(99 << 1 | 1)  # no line of the program
    assert holding.reported(2 << 1 | 1)
    assert end(holding, gdb, 10)

    begin(holding, gdb)
    assert gdb.told() == ["all", "enable 0x1000"]
    assert not arrives(holding, 0x1000, cpu=1)
    assert not arrives(holding, 0x2000, cpu=0)
    assert arrives(holding, 0x1000, cpu=0)
    assert end(holding, gdb, 20)
    assert gdb.told() == ["disable 0x1000"]

    begin(holding, gdb)
    assert gdb.told() == ["only thread 2", "enable 0x2000"]
    assert not arrives(holding, 0x2000, cpu=1)  # nothing pending
    assert not arrives(holding, 0x2000, cpu=1, pending=True)  # the first time
    assert arrives(holding, 0x2000, cpu=1, pending=True)
    assert holding.unfinished() is not None
    assert not end(holding, gdb, 30)  # the release after it is taken at once
    assert gdb.told() == ["disable 0x2000"]
    assert holding.done
    assert begin(holding, gdb) is None
    assert gdb.told() == ["all"]
    assert holding.unfinished() is None
    assert [text.partition(":")[0] for text in holding.taken] == [
        "record 10",
        "record 20",
        "record 30",
        "record 30",
    ]


def test_instructions_are_the_callers_to_execute() -> None:
    holding, gdb = make(Let(1, steps=5), Release())
    event = holding.begin(cast(Gdb, gdb))
    assert event is not None and (event.cpu, event.steps) == (1, 5)
    assert gdb.told() == ["only thread 2"]


def test_first_of_two_ends_the_step() -> None:
    holding, gdb = make(Let(0, reach="f", reported="get"), Release())
    begin(holding, gdb)
    assert holding.reported(3 << 1 | 1)


def test_wrong_lists_are_refused_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="no symbol h"):
        make(Hold(0, at="h"), Release())
    with pytest.raises(UsageError, match="no operation destroy"):
        make(Await("destroy"))
    with pytest.raises(UsageError, match="CPUs 0 to 0"):
        make(Hold(1, at="f"), Release(), cpus=1)


def test_places_of_the_interceptor_are_refused() -> None:
    holding, _ = make(Hold(0, at="f"), Release())
    holding.require_apart(lambda address: address == 0x2000)
    with pytest.raises(UsageError, match="f is a place of the interceptor's own"):
        holding.require_apart(lambda address: address == 0x1000)


def test_a_step_that_does_not_end_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    holding, gdb = make(Await("start"), Let(0, reach="f"), Release())
    begin(holding, gdb)
    assert not holding.overdue()
    end(holding, gdb, 7)
    begin(holding, gdb)
    monkeypatch.setattr(holding_module, "STEP_LIMIT", -1.0)
    assert holding.overdue()
    gdb.pcs = {1: 0x2000, 2: 0x3000}
    text = holding.describe(cast(Gdb, gdb), 2)
    assert text.startswith("step 2 of 3 did not end: CPU 0 runs alone until it reaches f")
    assert "CPU 0 stands at g" in text
    assert "CPU 1 stands at 0x3000" in text
    assert "before: record 7: all run until the agent has reported start" in text
    holding.report = text
    assert holding.unfinished() == text


def test_nothing_to_hold() -> None:
    holding, gdb = make()
    assert holding.done and holding.event is None
    assert begin(holding, gdb) is None
    assert not holding.overdue() and holding.unfinished() is None
    assert not arrives(holding, 0x1000, 0) and not holding.reported(5)
