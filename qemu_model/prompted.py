# SPDX-License-Identifier: GPL-2.0-or-later
"""One scenario's machine under a person's hands: ``hdbss shell``."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from subprocess import Popen
from types import FrameType

from qemu_model.errors import InfrastructureError, Unsupported, UsageError
from qemu_model.gdbstub.attach import GdbInterception, kernel_code
from qemu_model.gdbstub.debugger import Debugger, code_address
from qemu_model.gdbstub.mi import GdbLost
from qemu_model.gdbstub.shell import CtrlC, Quit, Shell
from qemu_model.machine.command import RunFiles
from qemu_model.machine.lost import MachineLost
from qemu_model.machine.progress import Progress
from qemu_model.runner import Bench, passing_directory, run_program
from qemu_model.scenarios.scenario import Scenario
from qemu_model.vmlinux.elf import Vmlinux

_FOREVER = math.inf
"""A person thinks as long as it takes."""


class _Attended:
    """What answers the machine's stops (``machine.vm.Intercepting``): a person."""

    def __init__(self, shell: Shell, debugger: Debugger, progress: Progress) -> None:
        self._shell, self._debugger, self._progress = shell, debugger, progress
        self.stops = 0

    def meanwhile(self, drain: Callable[[], None]) -> None:
        """Have ``drain`` called while gdb has nothing to say."""
        self._debugger.gdb.meanwhile = drain

    def serve(self, seconds: float) -> None:
        """Ask for commands while the machine stands still, else answer stops."""
        debugger = self._debugger
        if debugger.ended:
            raise GdbLost("QEMU has closed the connection to gdb")
        if debugger.stop is None:
            debugger.serve(seconds)
            self.stops = debugger.interceptor.stops
            if debugger.stop is None:
                return
            self._tell()
        self._shell.ask()
        if debugger.stop is not None:
            self._tell()  # what was waited for has happened at the first instruction

    def _tell(self) -> None:
        self._progress.done()
        self._shell.tell_stop()

    def flush(self) -> None:
        """Let the trace's file grow."""
        self._debugger.interceptor.flush()

    def trouble(self) -> str | None:
        """Nothing that a person does not see."""
        return None

    def unfinished(self) -> str | None:
        """Nothing was promised."""
        return None


class Session:
    """One machine and its prompt; also how it is attached (``machine.vm.Interception``)."""

    def __init__(self, names: tuple[str, ...], stop_at: str | None, progress: Progress) -> None:
        self._names, self._stop_at, self._progress = names, stop_at, progress
        self._plain: GdbInterception | None = None
        self.shell: Shell | None = None
        self.debugger: Debugger | None = None

    def around(self, plain: GdbInterception) -> Session:
        """Put the prompt between the machine and the interceptor."""
        self._plain = replace(plain, start=False)
        return self

    @contextmanager
    def attach(self, files: RunFiles, qemu: Popen[bytes]) -> Iterator[_Attended]:
        """Attach to a machine that stands at its first instruction."""
        assert self._plain is not None
        with self._plain.attach(files, qemu) as interceptor:
            self.debugger = debugger = Debugger(interceptor)
            self.shell = shell = Shell(debugger, files, self._names)
            self._progress.done()
            if self._stop_at is None:
                print("the machine stands at its first instruction", flush=True)
                shell.tell_stop()
            else:
                debugger.point(self._stop_at, once=True)
                debugger.resume()
            try:
                yield _Attended(shell, debugger, self._progress)
            finally:
                debugger.closed = True

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C: a new prompt, a stop of the machine, or at the second one the end."""
        if self.shell is not None and self.shell.asking:
            raise CtrlC
        if self.debugger is None or self.debugger.interrupted:
            raise KeyboardInterrupt
        self.debugger.interrupted = True

    def never(self) -> list[str]:
        """Places that were to be reached, and were not."""
        points = [] if self.debugger is None else self.debugger.points
        return [f"{point.text} was not reached" for point in points if point.once]


@contextmanager
def _signals(session: Session) -> Iterator[None]:
    def leave(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, session.interrupt), signal.signal(signal.SIGHUP, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGHUP, before[1])


def require_shell(bench: Bench, scenario: Scenario) -> None:
    """Unsupported for a scenario whose machine has no gdbstub interceptor; says why."""
    style = bench.uapi.style
    if style not in scenario.styles:
        raise Unsupported(f"{scenario.name} means nothing for a kernel driven by --uapi {style}")
    if scenario.not_in_gdb:
        raise Unsupported(f"{scenario.name}: {scenario.not_in_gdb}")
    if not scenario.needs.feature:
        raise Unsupported(f"{scenario.name}: its PEs have no FEAT_HDBSS, there is nothing to see")


def run_shell(bench: Bench, scenario: Scenario, stop_at: str | None, progress: Progress) -> None:
    """Run the machine of a scenario, in gdb mode, at a prompt until the person leaves it.

    ``stop_at`` is SYMBOL, SYMBOL+OFFSET or an address.  The holds of a scenario are not
    applied.  UsageError for a place that does not exist and for a kernel without vmlinux,
    Unsupported as ``require_shell``, InfrastructureError if the machine was lost.
    """
    require_shell(bench, scenario)
    vmlinux = bench.kernel.vmlinux
    if vmlinux is None:
        raise UsageError("hdbss shell needs the kernel's vmlinux: give --vmlinux")
    if stop_at is not None:
        code_address(stop_at, kernel_code(vmlinux, bench.kernel.image))
    session = Session(tuple(sorted(Vmlinux(vmlinux).symbols)), stop_at, progress)
    if sys.stdin.isatty():
        limits = replace(
            bench.limits, boot=_FOREVER, stall=_FOREVER, total=_FOREVER, leave=_FOREVER
        )
        bench = replace(bench, limits=limits)
    if scenario.holds:
        progress.line(f"{scenario.name} holds CPUs; here only you do")
    with _signals(session), passing_directory(bench, scenario.name) as directory, suppress(Quit):
        lost: MachineLost | None = None
        try:
            run_program(
                bench, scenario.name, bench.program(scenario), scenario.needs, directory, progress,
                attend=session.around, inject=scenario.inject,
            )  # fmt: skip
            said = ["the machine has powered off, the agent's program is done"]
        except MachineLost as error:
            if session.shell is None:
                raise
            lost = error
            said = [f"{error.kind}: {error.headline}", *(f"  | {x}" for x in error.last_lines)]
        progress.done()
        print("\n".join([*said, *session.never()]), flush=True)
        try:
            while session.shell is not None:
                session.shell.ask()  # about what is in the files
        except Quit:
            if lost is None:
                raise
            raise InfrastructureError(f"{lost.kind}: {lost.headline}; files: {directory}") from lost
