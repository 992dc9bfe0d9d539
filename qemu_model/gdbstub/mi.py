# SPDX-License-Identifier: GPL-2.0-or-later
"""A gdb that speaks MI, connected to QEMU's stub: commands, stops, and what goes wrong.

pygdbmi parses the records.  Reading is our own: a command is answered when its result
record is there, and pygdbmi's controller waits for a time-out after each one instead.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from subprocess import Popen
from typing import Any

from pygdbmi.gdbmiparser import parse_response

from qemu_model.errors import InfrastructureError

PROGRAMS = ("gdb-multiarch", "gdb")
ADVICE = "apt-get install gdb-multiarch"
COMMAND_LIMIT = 30.0
"""Seconds for one command; the stub answers in microseconds."""
_READ = 1 << 16
_VALUE = re.compile(r"0x[0-9a-f]+\Z")
_SETTINGS = (
    "mi-async on",
    "architecture aarch64",
    # Every stop would otherwise take all breakpoints out and put them back.
    "breakpoint always-inserted on",
    "displaced-stepping off",
    "print frame-arguments none",
    "backtrace limit 1",
    "confirm off",
    "pagination off",
    "remotetimeout 20",
)


class GdbLost(InfrastructureError):
    """gdb died, was disconnected or does not answer."""


class GdbError(InfrastructureError):
    """gdb refused a command."""


@dataclass(frozen=True)
class Stop:
    """The machine stands still: at ``pc`` of gdb's thread ``thread`` (1, 2.. as vCPUs).

    ``reason`` is MI's (``breakpoint-hit``, ``end-stepping-range``, ``signal-received``..).
    """

    thread: int
    pc: int
    reason: str


def find_gdb() -> str:
    """The gdb to use; InfrastructureError with what to install if there is none."""
    for program in PROGRAMS:
        found = shutil.which(program)
        if found is not None:
            return found
    raise InfrastructureError(f"there is no gdb-multiarch: {ADVICE}")


def gdb_argv(program: str) -> tuple[str, ...]:
    """The command that starts a gdb for ``Gdb``."""
    return (program, "--nx", "--nh", "--quiet", "--interpreter=mi3")


class Gdb:
    """One gdb process; ``process`` was started with pipes for input and output.

    Raises GdbLost wherever gdb ends or stays silent for too long.
    """

    def __init__(self, process: Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._input = process.stdin.fileno()
        self._output = process.stdout.fileno()
        self._buffer = b""
        self._stops: deque[Stop] = deque()
        self._results: deque[dict[str, Any]] = deque()
        self._said: deque[str] = deque(maxlen=20)
        self.gone = False
        """Whether QEMU has closed the connection: its process ends or has ended."""
        self.running = False
        self._numbers: dict[str, int] = {}
        self._breakpoints: dict[int, int] = {}
        for setting in _SETTINGS:
            self.command(f"-gdb-set {setting}")

    # --- commands ---------------------------------------------------------------

    def command(self, *lines: str) -> list[dict[str, Any]]:
        """Send commands at once and return the payloads of their results.

        GdbError carries gdb's message if one of them fails.
        """
        self._write(lines)
        return [self._result(line) for line in lines]

    def connect(self, address: str) -> None:
        """Connect to a stub: a path, or HOST:PORT.  Reads the names of all registers."""
        self.command(f"-target-select remote {address}")
        self._stops.clear()
        self.command("-gdb-set scheduler-locking step")
        names = self.command("-data-list-register-names")[0].get("register-names", [])
        self._numbers = {name: number for number, name in enumerate(names) if name}

    def threads(self) -> int:
        """The number of vCPUs."""
        return len(self.command("-thread-info")[0].get("threads", []))

    def has(self, register: str) -> bool:
        """Whether this QEMU shows a register of that name."""
        return register in self._numbers

    def read(self, *registers: str, thread: int | None = None) -> tuple[int, ...]:
        """The values of registers of the stopped thread, or of another; one round trip."""
        numbers = [self._numbers[register] for register in registers]
        which = "" if thread is None else f"--thread {thread} "
        wanted = " ".join(map(str, numbers))
        payload = self.command(f"-data-list-register-values {which}x {wanted}")[0]
        values = {int(v["number"]): v["value"] for v in payload.get("register-values", [])}
        found = [values.get(number, "") for number in numbers]
        for register, value in zip(registers, found, strict=True):
            if _VALUE.match(value) is None:
                raise GdbError(f"gdb does not deliver register {register}: {value!r}")
        return tuple(int(value, 16) for value in found)

    def write(self, register: str, value: int) -> None:
        """Set a general register of the stopped thread."""
        self.command(self.setting(register, value))

    @staticmethod
    def setting(register: str, value: int) -> str:
        """The command that does it, for those who send several at once."""
        return f"-gdb-set ${register} = {value:#x}"

    # --- breakpoints --------------------------------------------------------------

    def breakpoints(self, addresses: Iterable[int], enabled: bool) -> None:
        """Make hardware breakpoints at addresses that have none yet."""
        flag = "" if enabled else "-d "
        new = [address for address in addresses if address not in self._breakpoints]
        lines = [f"-break-insert -h {flag}*{address:#x}" for address in new]
        for address, payload in zip(new, self.command(*lines), strict=True):
            self._breakpoints[address] = int(payload["bkpt"]["number"])

    def enable(self, addresses: Iterable[int], enabled: bool) -> None:
        """Enable or disable breakpoints that were made before."""
        numbers = " ".join(str(self._breakpoints[address]) for address in addresses)
        if numbers:
            self.command(f"-break-{'enable' if enabled else 'disable'} {numbers}")

    # --- running ------------------------------------------------------------------

    def go(self, *before: str, jump: int | None = None) -> None:
        """Let the machine run, from ``jump`` on where the stopped thread is concerned.

        ``before`` are commands sent in the same breath.  From the address at which it has
        stopped gdb first steps over the breakpoint there.
        """
        last = "-exec-continue" if jump is None else f"-exec-jump *{jump:#x}"
        self._resume((*before, last))

    def go_alone(self, thread: int, on: bool) -> None:
        """From now on run only the selected thread (``on``), or all of them."""
        lines = [f"-gdb-set scheduler-locking {'on' if on else 'step'}"]
        if on:
            lines.insert(0, f"-thread-select {thread}")
        self.command(*lines)

    def step(self) -> Stop:
        """Execute one instruction of the stopped thread, the others stand still."""
        self._resume(("-exec-step-instruction",))
        stop = self.wait(COMMAND_LIMIT)
        if stop is None:
            raise GdbLost(self._story("gdb's single step did not end"))
        return stop

    def _resume(self, lines: Sequence[str]) -> None:
        self.running = True
        self._write(lines)
        for line in lines:
            self._result(line)

    def wait(self, limit: float) -> Stop | None:
        """The next stop; None if there is none within ``limit`` seconds, or QEMU is gone."""
        end = time.monotonic() + limit
        while not self._stops and not self.gone:
            left = end - time.monotonic()
            if left <= 0 or not self._pump(left):
                return None
        if not self._stops:
            return None
        self.running = False
        return self._stops.popleft()

    def interrupt(self) -> Stop | None:
        """Stop a running machine; None if QEMU is gone."""
        self.command("-exec-interrupt --all")
        stop = self.wait(COMMAND_LIMIT)
        if stop is None and not self.gone:
            raise GdbLost(self._story("gdb cannot stop the machine"))
        return stop

    # --- the stream ---------------------------------------------------------------

    def _write(self, lines: Sequence[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            while data:
                data = data[os.write(self._input, data) :]
        except OSError as error:
            raise GdbLost(self._story("gdb has ended")) from error

    def _result(self, line: str) -> dict[str, Any]:
        end = time.monotonic() + COMMAND_LIMIT
        while not self._results:
            left = end - time.monotonic()
            if left <= 0 or (not self._pump(left) and not self._results):
                raise GdbLost(self._story(f"gdb does not answer to {line}"))
        result = self._results.popleft()
        payload = result["payload"] or {}
        if result["message"] == "error":
            message = str(payload.get("msg", "no reason given"))
            if "Remote connection closed" in message or "not being run" in message:
                self.gone = True
                return {}
            raise GdbError(f"gdb: {line}: {message}")
        return dict(payload) if isinstance(payload, dict) else {}

    def _pump(self, limit: float) -> bool:
        """Take what gdb says; False if it said nothing within ``limit`` seconds."""
        if not select.select([self._output], [], [], limit)[0]:
            return False
        data = os.read(self._output, _READ)
        if not data:
            if self.gone:
                return False
            raise GdbLost(self._story("gdb has ended"))
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8", "replace").strip())
        return True

    def _line(self, text: str) -> None:
        if text[:1] in ("~", "&", "="):
            self._said.append(text)
            if text.startswith("=thread-group-exited"):
                self.gone = True
            return
        if text[:1] not in ("*", "^"):
            return  # the prompt, or what gdb's libraries print
        record = parse_response(text)
        if record["type"] == "result":
            self._results.append(record)
        elif record["message"] == "stopped":
            self._stopped(record["payload"] or {})

    def _stopped(self, payload: dict[str, Any]) -> None:
        reason = str(payload.get("reason", ""))
        if reason.startswith("exited"):
            self.gone = True
            return
        try:
            stop = Stop(int(payload["thread-id"]), int(payload["frame"]["addr"], 16), reason)
        except (KeyError, TypeError, ValueError):
            self._said.append(f"a stop without a place: {payload}")
            return
        self._stops.append(stop)

    def said(self) -> tuple[str, ...]:
        """The last lines that gdb printed for people."""
        return tuple(self._said)

    def _story(self, headline: str) -> str:
        status = self._process.poll()
        how = "" if status is None else f" (status {status})"
        said = "".join(f"\n  | {line}" for line in self._said)
        return f"{headline}{how}{said}"
