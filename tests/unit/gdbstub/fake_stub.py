# SPDX-License-Identifier: GPL-2.0-or-later
"""A ``Gdb`` without a process: registers are a dictionary, and all that is done is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qemu_model.gdbstub.mi import Gdb, GdbError, Stop

Done = tuple[object, ...]
"""("set", register, value), ("go", address), ("step", address) or ("enable", on, addresses)."""


class FakeStub(Gdb):
    """Machine and debugger in one; ``registers`` are those of the stopped thread."""

    def __init__(self, pes: int, **registers: int) -> None:
        self.registers = {"pc": 0, **registers}
        self.pes = pes
        self.enabled: dict[int, bool] = {}
        self.done: list[Done] = []
        self.stepped: list[dict[str, int]] = []
        """The registers at each single step."""
        self.stops: list[Stop] = []
        self.gone = False
        self.running = False

    def has(self, register: str) -> bool:
        return register in self.registers

    def threads(self) -> int:
        return self.pes

    def read(self, *registers: str, thread: int | None = None) -> tuple[int, ...]:
        for register in registers:
            if register not in self.registers:
                raise GdbError(f"no {register}")
        return tuple(self.registers[register] for register in registers)

    def command(self, *lines: str) -> list[dict[str, Any]]:
        for line in lines:
            what, _, value = line.removeprefix("-gdb-set $").partition(" = ")
            assert line.startswith("-gdb-set $"), line
            self.registers[what] = int(value, 16)
            self.done.append(("set", what, int(value, 16)))
        return [{} for _ in lines]

    def breakpoints(self, addresses: Iterable[int], enabled: bool) -> None:
        for address in addresses:
            self.enabled.setdefault(address, enabled)

    def enable(self, addresses: Iterable[int], enabled: bool) -> None:
        addresses = tuple(addresses)
        assert all(address in self.enabled for address in addresses)
        self.enabled.update(dict.fromkeys(addresses, enabled))
        self.done.append(("enable", enabled, addresses))

    def go(self, *before: str, jump: int | None = None) -> None:
        self.command(*before)
        self.done.append(("go", self.registers["pc"] if jump is None else jump))
        self.running = True

    def step(self, limit: float = 1.0) -> Stop:
        self.stepped.append(dict(self.registers))
        self.registers["pc"] += 4
        self.done.append(("step", self.registers["pc"]))
        return Stop(1, self.registers["pc"], "end-stepping-range")

    def wait(self, limit: float) -> Stop | None:
        return self.stops.pop(0) if self.stops else None
