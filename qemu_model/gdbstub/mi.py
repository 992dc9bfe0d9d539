# SPDX-License-Identifier: GPL-2.0-or-later
"""A gdb that speaks MI, connected to QEMU's stub: commands, stops, and what goes wrong.

pygdbmi parses the records.  Reading is our own: a command is answered when its result
record is there, and pygdbmi's controller waits for a time-out after each one instead.
What gdb says is checked before it is believed, because pygdbmi's parser never comes back
from some lines that are no MI.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from subprocess import Popen, TimeoutExpired
from typing import Any

from pygdbmi.gdbmiparser import parse_response

from qemu_model.errors import InfrastructureError

PROGRAMS = ("gdb-multiarch", "gdb")
ADVICE = "apt-get install gdb-multiarch"
COMMAND_LIMIT = 30.0
"""Seconds for one command; the stub answers in microseconds."""
SILENCE = 5.0
"""Seconds without a word from gdb after which it is asked whether it is alive."""
_SLICE = 0.02
"""Seconds between two calls of ``Gdb.meanwhile``."""
_READ = 1 << 16
_LINE_MAX = 1 << 22
_PIPE_BUF = 512
"""Bytes that a pipe which is ready takes without blocking, by POSIX."""
_VALUE = re.compile(r"0x[0-9a-f]{1,16}\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")
_STRING = re.compile(r'"(?:[^"\\]|\\(?:[0-7]{3}|[abefnrt"\\\']))*"')
_KEY = r"[A-Za-z_][\w-]*="
_S = r"\x00"
_LIST = re.compile(
    rf"\{{(?:{_KEY}{_S}(?:,{_KEY}{_S})*)?\}}|\[(?:(?:{_KEY})?{_S}(?:,(?:{_KEY})?{_S})*)?\]"
)
"""A tuple or a list of MI whose members are strings; these are a NUL by then."""
_RECORD = re.compile(rf"[*^][a-z-]+(?:,{_KEY}{_S})*")
_DEPTH = 16
_GONE = (
    "Remote connection closed",
    "Remote communication error",
    "Target disconnected",
    "not being run",
    "has no registers now",
)
"""What gdb says when QEMU has closed the connection."""
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


def well_formed(record: str) -> bool:
    """Whether a line is a result or an asynchronous record of MI's grammar."""
    if "\0" in record:
        return False
    text = _STRING.sub("\0", record)
    for _ in range(_DEPTH):
        text, found = _LIST.subn("\0", text)
        if not found:
            break
    return _RECORD.fullmatch(text) is not None


def _dicts(value: object) -> list[dict[str, Any]]:
    """The tuples in a list of MI; none if it is no list."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


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
        self.meanwhile: Callable[[], None] = lambda: None
        """Called again and again while gdb is waited for."""
        self._heard = time.monotonic()
        self._numbers: dict[str, int] = {}
        self._breakpoints: dict[int, int] = {}
        for setting in _SETTINGS:
            try:
                self.command(f"-gdb-set {setting}")
            except GdbError as error:
                raise GdbError(f"{error}: this gdb is too old or not for arm64: {ADVICE}") from None

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
        names = self.command("-data-list-register-names")[0].get("register-names")
        self._numbers = {
            name: number
            for number, name in enumerate(names if isinstance(names, list) else [])
            if isinstance(name, str) and name
        }

    def threads(self) -> int:
        """The number of vCPUs."""
        return len(_dicts(self.command("-thread-info")[0].get("threads")))

    def has(self, register: str) -> bool:
        """Whether this QEMU shows a register of that name."""
        return register in self._numbers

    def read(self, *registers: str, thread: int | None = None) -> tuple[int, ...]:
        """The values of registers of the stopped thread, or of another; one round trip."""
        missing = [register for register in registers if register not in self._numbers]
        if missing:
            raise GdbError(f"this QEMU's gdbstub does not show {', '.join(missing)}")
        numbers = [self._numbers[register] for register in registers]
        which = "" if thread is None else f"--thread {thread} "
        wanted = " ".join(map(str, numbers))
        payload = self.command(f"-data-list-register-values {which}x {wanted}")[0]
        if self.gone:
            raise GdbLost(self._story("QEMU has closed the connection to gdb"))
        listed = _dicts(payload.get("register-values"))
        values = {str(v.get("number")): str(v.get("value")) for v in listed}
        found = [values.get(str(number), "") for number in numbers]
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
            made = payload.get("bkpt")
            number = str(made.get("number")) if isinstance(made, dict) else ""
            if _NUMBER.match(number) is None:
                raise GdbError(f"gdb does not make a breakpoint at {address:#x}: {payload}")
            self._breakpoints[address] = int(number)

    def enable(self, addresses: Iterable[int], enabled: bool) -> None:
        """Enable or disable breakpoints that were made before."""
        numbers = " ".join(str(self._breakpoints[address]) for address in addresses)
        if numbers:
            self.command(f"-break-{'enable' if enabled else 'disable'} {numbers}")

    def insert(self, address: int) -> int:
        """Make a breakpoint beside those of ``breakpoints``; its number is for ``delete``."""
        made = self.command(f"-break-insert -h *{address:#x}")[0].get("bkpt")
        number = str(made.get("number")) if isinstance(made, dict) else ""
        if _NUMBER.match(number) is None:
            raise GdbError(f"gdb does not make a breakpoint at {address:#x}")
        return int(number)

    def delete(self, numbers: Iterable[int]) -> None:
        """Remove breakpoints that ``insert`` made."""
        words = " ".join(map(str, numbers))
        if words:
            self.command(f"-break-delete {words}")

    def memory(self, address: int, size: int) -> bytes:
        """``size`` bytes as the stopped PE sees them; GdbError where nothing is mapped."""
        payload = self.command(f"-data-read-memory-bytes {address:#x} {size}")[0]
        parts = [str(part.get("contents")) for part in _dicts(payload.get("memory"))]
        try:
            data = bytes.fromhex("".join(parts))
        except ValueError:
            data = b""
        if len(data) != size:
            raise GdbError(f"gdb does not deliver {size} bytes at {address:#x}")
        return data

    def halted(self) -> frozenset[int]:
        """The threads whose vCPU waits (WFI), or was never switched on."""
        threads = _dicts(self.command("-thread-info")[0].get("threads"))
        idle = (t for t in threads if "halted" in str(t.get("details")))
        return frozenset(int(t["id"]) for t in idle if _NUMBER.match(str(t.get("id"))))

    # --- running ------------------------------------------------------------------

    def go(self, *before: str, jump: int | None = None) -> None:
        """Let the machine run, from ``jump`` on where the stopped thread is concerned.

        ``before`` are commands sent in the same breath.  From the address at which it has
        stopped gdb first steps over the breakpoint there.
        """
        last = "-exec-continue" if jump is None else f"-exec-jump *{jump:#x}"
        self._resume((*before, last))

    def go_alone(self, thread: int | None) -> None:
        """From now on let only this thread run, or (None) all of them."""
        if thread is None:
            self.command("-gdb-set scheduler-locking step")
        else:
            self.select(thread)
            self.command("-gdb-set scheduler-locking on")

    def select(self, thread: int) -> None:
        """Make a thread the current one, here and for QEMU.

        QEMU ascribes an interrupt to the PE that stopped last.  Where that one was not
        running, gdb 13 dies of an assertion (skip_inline_frames).
        """
        self.command(f"-thread-select {thread}", f"maintenance packet Hcp1.{thread:x}")

    def step(self, limit: float = COMMAND_LIMIT) -> Stop:
        """Execute one instruction of the stopped thread, the others stand still.

        A PE that does not come to its end (WFI) is stopped after ``limit`` seconds.
        """
        self._resume(("-exec-step-instruction",))
        stop = self.wait(limit) or self.interrupt()
        if stop is None:
            raise GdbLost(self._story("gdb's single step did not end"))
        return stop

    def _resume(self, lines: Sequence[str]) -> None:
        self.running = True
        self._write(lines)
        for line in lines:
            self._result(line)

    def wait(self, limit: float) -> Stop | None:
        """The next stop; None if there is none within ``limit`` seconds, or QEMU is gone.

        A gdb that has been silent for long has to answer: GdbLost if it does not.
        """
        end = time.monotonic() + limit
        while not self._stops and not self.gone:
            left = end - time.monotonic()
            if left <= 0 or not self._pump(left):
                break
        if not self._stops and not self.gone and time.monotonic() - self._heard > SILENCE:
            self.command("-gdb-set confirm off")
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
        end = time.monotonic() + COMMAND_LIMIT
        while data:
            left = max(0.0, end - time.monotonic())
            heard, ready, _ = select.select([self._output], [self._input], [], left)
            try:
                if ready:
                    data = data[os.write(self._input, data[:_PIPE_BUF]) :]
            except OSError as error:
                raise self._ended() from error
            # It may want to be read before it reads on.
            if heard and not self._pump(0) and self.gone:
                return
            if not heard and not ready:
                raise GdbLost(self._story(f"gdb does not take {lines[-1]}"))

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
            if any(words in message for words in _GONE):
                self.gone = True
                return {}
            raise GdbError(f"gdb: {line}: {message}")
        return dict(payload)

    def _pump(self, limit: float) -> bool:
        """Take what gdb says; False if it said nothing within ``limit`` seconds."""
        end = time.monotonic() + limit
        while not select.select([self._output], [], [], min(limit, _SLICE))[0]:
            self.meanwhile()
            limit = end - time.monotonic()
            if limit <= 0:
                return False
        data = os.read(self._output, _READ)
        if not data:
            if self.gone:
                return False
            raise self._ended()
        self._heard = time.monotonic()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > _LINE_MAX:
            raise GdbLost(f"gdb says a line of more than {_LINE_MAX >> 20} MiB")
        for line in lines:
            self._line(line.decode("utf-8", "replace").strip())
        return True

    def _line(self, text: str) -> None:
        if text.startswith("=thread-group-exited"):
            self.gone = True
        if text[:1] not in ("*", "^"):
            # For people; a line that is no MI at all comes from a gdb that cannot start.
            if text and text != "(gdb)":
                self._said.append(text)
            return
        if not well_formed(text):
            raise GdbLost(self._story(f"gdb says what is no MI: {text[:80]!r}"))
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
        frame = payload.get("frame")
        thread = str(payload.get("thread-id"))
        address = str(frame.get("addr")) if isinstance(frame, dict) else ""
        if _NUMBER.match(thread) is None or _VALUE.match(address) is None:
            raise GdbLost(self._story(f"gdb reports a stop without a place: {payload}"))
        self._stops.append(Stop(int(thread), int(address, 16), reason))

    def said(self) -> tuple[str, ...]:
        """The last lines that gdb printed for people."""
        return tuple(self._said)

    def _ended(self) -> GdbLost:
        with suppress(TimeoutExpired):
            self._process.wait(1.0)  # its pipe closes a moment before it can be waited for
        return GdbLost(self._story("gdb has ended"))

    def _story(self, headline: str) -> str:
        status = self._process.poll()
        how = "" if status is None else f" (status {status})"
        said = "".join(f"\n  | {line}" for line in self._said)
        return f"{headline}{how}{said}"
