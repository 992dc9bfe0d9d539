# SPDX-License-Identifier: GPL-2.0-or-later
"""The prompt of ``hdbss shell``."""

from __future__ import annotations

import cmd
import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TextIO

from qemu_model.channel import Begin, Bye, Decoder, Fatal, Frame, Result
from qemu_model.errors import UsageError
from qemu_model.gdbstub.debugger import Debugger
from qemu_model.gdbstub.explain import buffer_lines, pe_lines, walk_lines
from qemu_model.gdbstub.listing import listing
from qemu_model.gdbstub.mi import GdbError
from qemu_model.gdbstub.moments import Moment
from qemu_model.machine.command import RunFiles
from qemu_model.machine.console import clean
from qemu_model.trace import HEADER, RECORD, count_records, describe

PROMPT = "(hdbss) "
_GENERAL = (*(f"x{n}" for n in range(31)), "sp", "pc", "cpsr")
_SYSTEM = (
    *("ESR_EL2", "FAR_EL2", "HPFAR_EL2", "ELR_EL2", "SPSR_EL2"),
    *("HCR_EL2", "VTTBR_EL2", "VTCR_EL2", "HDBSSBR_EL2", "HDBSSPROD_EL2"),
)
_PER_LINE = 4
_COUNT_MAX = 100_000
_SECONDS_MAX = 86_400.0
_TAIL = 1 << 16
"""Bytes of the console that ``log`` looks at."""
_SHOWN_MAX = 60
"""Completions that are offered at a time."""


class Quit(Exception):
    """The person has had enough."""


class CtrlC(Exception):
    """Ctrl-C at the prompt."""


class Shell(cmd.Cmd):
    """Commands for one machine; each takes its arguments as one line.

    A command returns True when the machine is to run.  After the end of the machine those
    that look into files still work.
    """

    prompt = PROMPT
    doc_header = "Commands (help COMMAND says more; numbers as 12 or 0xc):"

    def __init__(
        self,
        debugger: Debugger,
        files: RunFiles,
        names: Sequence[str] = (),
        stdin: TextIO | None = None,
    ) -> None:
        super().__init__()
        self._input = stdin or sys.stdin
        self._debugger = debugger
        self._files = files
        self._names = names
        self.asking = False
        """Whether it waits for a line, so that Ctrl-C is CtrlC and stops no machine."""

    # --- the prompt -----------------------------------------------------------------

    def ask(self) -> None:
        """Do commands until one lets the machine run; raises Quit."""
        while True:
            try:
                line = self._line()
            except CtrlC:
                self._say("")
                continue
            self._debugger.interrupted = False
            if self.onecmd(line):
                return

    def _line(self) -> str:
        self.asking = True
        try:
            if self._input is sys.stdin and sys.stdin.isatty():
                try:
                    return input(self.prompt)
                except EOFError:
                    self._say("")
                    return "EOF"
            line = self._input.readline()
        finally:
            self.asking = False
        if line:
            self._say(f"{self.prompt}{line.rstrip()}")  # so that a transcript can be read
        return line.strip() if line else "EOF"

    def onecmd(self, line: str) -> bool:
        """Do one command; whatever is wrong with it is one line."""
        try:
            return bool(super().onecmd(line))
        except (UsageError, GdbError) as error:
            self._say(f"{error}")
            return False

    def emptyline(self) -> bool:
        """Nothing is repeated."""
        return False

    def default(self, line: str) -> None:
        """Neither a command nor the end."""
        if line == "EOF":
            raise Quit
        raise UsageError(f"there is no command {line.split()[0]}; help lists them")

    def _say(self, line: str) -> None:
        print(line, flush=True)

    def _say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            if self._debugger.interrupted:
                self._say("interrupted")
                return
            self._say(line)

    def tell_stop(self) -> None:
        """Say why and where the machine stands."""
        debugger = self._debugger
        if debugger.stop is None:
            return
        self._say_all(debugger.why)
        state = debugger.state(debugger.pe)
        where = "in the guest" if state.guest else f"EL{state.el}"
        self._say(f"PE {state.index} stands at {state.place}, {where}")
        if not state.guest:
            self._list(debugger.stop.pc, 1, quiet=True)

    # --- arguments --------------------------------------------------------------------

    @staticmethod
    def _words(arg: str, most: int, usage: str) -> list[str]:
        words = arg.split()
        if len(words) > most:
            raise UsageError(f"too many arguments; usage: {usage}")
        return words

    @staticmethod
    def _number(text: str, what: str, low: int, high: int) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            raise UsageError(f"{what}: {text!r} is not a number") from None
        if not low <= value <= high:
            raise UsageError(f"{what}: {text} is not between {low} and {high:#x}")
        return value

    def _count(self, words: list[str], at: int, default: int) -> int:
        return self._number(words[at], "N", 1, _COUNT_MAX) if len(words) > at else default

    def _pe(self, words: list[str], at: int = 0) -> int:
        if len(words) <= at:
            return self._debugger.pe
        _ = self._debugger.pe
        return self._number(words[at], "PE", 0, len(self._debugger.pes) - 1)

    # --- looking ----------------------------------------------------------------------

    def do_where(self, arg: str) -> None:
        """where: where each PE is, what its HDBSS does, and why it left its guest."""
        self._words(arg, 0, "where")
        for pe in range(len(self._debugger.pes)):
            current = pe == self._debugger.pe
            self._say_all(pe_lines(self._debugger.state(pe), current))

    def do_pe(self, arg: str) -> None:
        """pe [PE]: choose the PE that other commands are about."""
        words = self._words(arg, 1, "pe [PE]")
        self._debugger.choose(self._pe(words))
        self.tell_stop()

    def do_regs(self, arg: str) -> None:
        """regs [PE] [NAME...]: registers; HDBSS and VTCR_EL2 as software has written them."""
        words = arg.split()
        numbered = bool(words) and words[0].isdecimal()
        pe = self._pe(words if numbered else [])
        names = words[1:] if numbered else words
        found = self._debugger.registers(pe, names or (*_GENERAL, *_SYSTEM))
        for at in range(0, len(found), _PER_LINE):
            row = found[at : at + _PER_LINE]
            self._say("  ".join(f"{name:>13} {value:#018x}" for name, value in row))

    def do_buffer(self, arg: str) -> None:
        """buffer [PE] [N]: the last N entries (16) before INDEX, and the slot INDEX names."""
        words = self._words(arg, 2, "buffer [PE] [N]")
        pe, count = self._pe(words), self._count(words, 1, 16)
        held = self._debugger.pes[pe].model.producer
        self._say_all(
            buffer_lines(held.hdbssbr, held.hdbssprod, held.vtcr, self._debugger.read64, count)
        )

    def do_walk(self, arg: str) -> None:
        """walk IPA [PE]: the stage 2 walk of an IPA with that PE's VTTBR_EL2 and VTCR_EL2."""
        words = self._words(arg, 2, "walk IPA [PE]")
        if not words:
            raise UsageError("usage: walk IPA [PE]")
        ipa, pe = self._number(words[0], "IPA", 0, (1 << 64) - 1), self._pe(words, 1)
        ((_, vttbr),) = self._debugger.registers(pe, ["VTTBR_EL2"])
        if not vttbr:
            self._say(f"PE {pe}: VTTBR_EL2 is 0, no VM has been on it")
            return
        held = self._debugger.pes[pe].model.producer
        self._say_all(
            walk_lines(ipa, vttbr, held.vtcr, held.hdbssbr, held.hdbssprod, self._debugger.read64)
        )

    def do_disas(self, arg: str) -> None:
        """disas [ADDR|SYMBOL[+OFFSET]] [N]: N instructions (8), by default from PC on."""
        words = self._words(arg, 2, "disas [ADDR|SYMBOL[+OFFSET]] [N]")
        standing = self._debugger.stop
        start = self._debugger.address(words[0]) if words else standing.pc if standing else 0
        self._list(start, self._count(words, 1, 8))

    def _list(self, start: int, count: int, quiet: bool = False) -> None:
        debugger = self._debugger
        pc = None if debugger.stop is None else debugger.stop.pc

        def notes(address: int) -> str:
            words = ["PC"] if address == pc and not quiet else []
            return ", ".join(words + ["the model acts here"] * debugger.watched(address))

        try:
            self._say_all(listing(start, debugger.code(start, 4 * count), debugger.name, notes))
        except (UsageError, GdbError):
            if not quiet:
                raise

    def do_trace(self, arg: str) -> None:
        """trace [N]: the last N records (10) of the trace."""
        count = self._count(self._words(arg, 1, "trace [N]"), 0, 10)
        if not self._debugger.ended:
            self._debugger.interceptor.flush()
        total = count_records(self._files.trace)
        first = max(0, total - count)
        with self._files.trace.open("rb") as file:
            file.seek(HEADER.size + first * RECORD.size)
            data = file.read((total - first) * RECORD.size)
        self._say_all(describe(record) for record in RECORD.iter_unpack(data))

    def do_log(self, arg: str) -> None:
        """log [N]: the last N lines (10) of the kernel's console."""
        count = self._count(self._words(arg, 1, "log [N]"), 0, 10)
        lines = [clean(line) for line in _tail(self._files.console).split(b"\n")]
        self._say_all([line for line in lines if line][-count:])

    def do_agent(self, arg: str) -> None:
        """agent [N]: how far the agent's program is, and its last N results (3)."""
        count = self._count(self._words(arg, 1, "agent [N]"), 0, 3)
        decoder = Decoder()
        frames = decoder.feed(_all(self._files.agent))
        if not frames:
            decoder = Decoder(shared=True)
            frames = decoder.feed(_all(self._files.console))
        program = self._files.program.read_text().splitlines()
        self._say_all(agent_lines(frames, program, count))

    # --- going on -----------------------------------------------------------------------

    def do_continue(self, arg: str) -> bool:
        """continue [SECONDS]: run until something stops the machine, or for so long."""
        words = self._words(arg, 1, "continue [SECONDS]")
        seconds = None
        if words:
            try:
                seconds = float(words[0])
            except ValueError:
                raise UsageError(f"SECONDS: {words[0]!r} is not a number") from None
            if not 0 < seconds <= _SECONDS_MAX:
                raise UsageError(f"SECONDS: {words[0]} is not between 0 and {_SECONDS_MAX:.0f}")
        self._debugger.resume(seconds)
        return True

    do_c = do_continue

    def do_until(self, arg: str) -> bool:
        """until SYMBOL[+OFFSET]|ADDR: run until a PE gets there; the breakpoint goes after it."""
        self._debugger.point(self._place(arg, "until"), once=True)
        self._debugger.resume()
        return True

    def do_break(self, arg: str) -> None:
        """break [SYMBOL[+OFFSET]|ADDR]: stop there each time; without a place list them."""
        if arg.strip():
            made = self._debugger.point(self._place(arg, "break"))
            self._say(f"breakpoint {made.number} at {made.text} ({made.addresses[0]:#x})")
            return
        for point in self._debugger.points:
            self._say(f"{point.number}: {point.text} ({point.addresses[0]:#x})")

    @staticmethod
    def _place(arg: str, command: str) -> str:
        words = arg.split()
        if len(words) != 1:
            raise UsageError(f"usage: {command} SYMBOL[+OFFSET]")
        return words[0]

    def do_delete(self, arg: str) -> None:
        """delete [NUMBER]: remove a breakpoint, or all of them."""
        words = self._words(arg, 1, "delete [NUMBER]")
        _ = self._debugger.pe
        points = self._debugger.points
        if words:
            number = self._number(words[0], "NUMBER", 1, _COUNT_MAX)
            points = [point for point in points if point.number == number]
            if not points:
                raise UsageError(f"there is no breakpoint {number}")
        self._debugger.remove(points)

    def do_step(self, arg: str) -> None:
        """step [N]: execute N instructions (1) of the current PE; the others stand still."""
        count = self._count(self._words(arg, 1, "step [N]"), 0, 1)
        debugger = self._debugger
        for _ in range(count):
            debugger.step()
            if debugger.why or debugger.interrupted or debugger.ended:
                break
        debugger.interrupted = False
        self.tell_stop()

    do_s = do_step

    def do_next(self, arg: str) -> bool:
        """next append|refusal|flush|entry|exit [PE]: run until the model records the next one.

        append: an entry was written; refusal: an access was refused with HDBSSF;
        flush: the kernel set HDBSSPROD_EL2.INDEX to 0; entry, exit: of the guest.
        """
        words = self._words(arg, 2, "next append|refusal|flush|entry|exit [PE]")
        if not words or words[0] not in set(Moment):
            raise UsageError("usage: next append|refusal|flush|entry|exit [PE]")
        pe = self._pe(words, 1) if len(words) > 1 else None
        self._debugger.resume(wanted=(Moment(words[0]), pe))
        return True

    def do_quit(self, arg: str) -> None:
        """quit: end the machine and leave; Ctrl-D does the same."""
        raise Quit

    do_q = do_quit

    # --- help ---------------------------------------------------------------------------

    def do_help(self, arg: str) -> None:
        """help [COMMAND]: what there is, or what a command does."""
        name = self._words(arg, 1, "help [COMMAND]")
        found: Callable[..., object] | None = getattr(self, f"do_{name[0]}", None) if name else None
        if name and found is None:
            raise UsageError(f"there is no command {name[0]}; help lists them")
        if found is not None:
            self._say_all(line.strip() for line in (found.__doc__ or "").strip().splitlines())
            return
        self._say(self.doc_header)
        for each in self.get_names():
            if each.startswith("do_") and len(each) > len("do_x"):
                text = (getattr(self, each).__doc__ or "").strip().splitlines()[0]
                self._say(f"  {text}")
        self._say("Ctrl-C stops a running machine; empty lines repeat nothing.")

    def completenames(self, text: str, *ignored: object) -> list[str]:
        """Commands of more than a letter."""
        return [name for name in super().completenames(text) if len(name) > 1 and name != "EOF"]

    def _symbols(self, text: str, *_: object) -> list[str]:
        names = self._names
        at = bisect_left(names, text)
        return [name for name in names[at : at + _SHOWN_MAX] if name.startswith(text)]

    complete_until = complete_break = complete_disas = _symbols

    def complete_next(self, text: str, *_: object) -> list[str]:
        """The moments."""
        return [str(moment) for moment in Moment if moment.startswith(text)]


def agent_lines(frames: Sequence[Frame], program: Sequence[str], count: int) -> list[str]:
    """How far a program is: its last results, and what is being done."""

    def line(number: int) -> str:
        text = program[number - 1].partition("#")[0].strip() if 0 < number <= len(program) else "?"
        return f"line {number} of {len(program)}: {text}"

    if not frames:
        return ["the agent has not said a word yet"]
    results: deque[str] = deque(maxlen=count)
    now = "the agent is up"
    for frame in frames:
        if isinstance(frame, Begin):
            now = f"{line(frame.line)} ..."
        elif isinstance(frame, Result):
            more = "".join(f" {key}={value}" for key, value in frame.fields.items())
            results.append(f"{line(frame.line)} -> ret={frame.ret}{more}")
            now = ""
        elif isinstance(frame, Bye):
            now = f"all {frame.lines} lines are done"
        elif isinstance(frame, Fatal):
            now = f"the agent gave up: {frame.text}"
    # The guest writes what it likes; escape sequences are not for this terminal.
    return [clean(text.encode()) for text in (*results, now) if text]


def _all(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read()
    except OSError:
        return b""
