# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine from start to end: its process, its run directory, and how it ended."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Protocol

from qemu_model.channel import Begin, Channel, Decoder, Frame
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine.build import tail
from qemu_model.machine.cache import file_trouble
from qemu_model.machine.child import child, end_group
from qemu_model.machine.command import MachineSpec, RunFiles, compose
from qemu_model.machine.console import BootLog, Console, Stage, clean
from qemu_model.machine.flushservice import FlushService
from qemu_model.machine.initramfs import write_initramfs
from qemu_model.machine.kernelwatch import kernel_watch
from qemu_model.machine.lost import Loss, MachineLost, Outcome, ended, panicked, where
from qemu_model.machine.progress import Progress
from qemu_model.machine.qemu import Qemu
from qemu_model.machine.record import Record
from qemu_model.machine.watch import FileTail, Watchdog
from qemu_model.trace import count_records

#: How often the signs of life are looked at (seconds).
_TICK = 0.2
#: The trace is looked at less often: it takes some 40 reads.
_TRACE_TICK = 1.0
#: A status that stays the same is said again, with the time: silence would look like a hang.
_REPEAT = 5.0
#: Room that the logs and the trace need (bytes).
_SPARE = 256 << 20
_QEMU_LINES = 20
#: What QEMU gets to end by itself when its debugger has lost it (seconds).
_LAST_WORDS = 5.0


@dataclass(frozen=True)
class Limits:
    """What a machine may take: seconds, and bytes of output.

    ``boot`` until the agent's hello, ``stall`` without any sign of life, ``total``
    altogether, ``leave`` for the end after a panic or after the agent's bye.
    """

    boot: float = 120.0
    stall: float = 180.0
    total: float = 900.0
    leave: float = 20.0
    console_bytes: int = 16 << 20
    agent_bytes: int = 32 << 20


class Intercepting(Protocol):
    """What answers the machine's stops."""

    stops: int
    """How many there were."""

    def meanwhile(self, drain: Callable[[], None]) -> None:
        """Have ``drain`` called whenever QEMU lets us wait.

        When nobody reads the console QEMU waits for us, and does not hear its debugger.
        """

    def serve(self, seconds: float) -> None:
        """Answer stops for about so long."""

    def flush(self) -> None:
        """Let the trace's file grow."""

    def trouble(self) -> str | None:
        """Why it makes no sense to wait any longer."""

    def unfinished(self) -> str | None:
        """What was to happen before the machine ended by itself, and did not."""


class Interception(Protocol):
    """How a machine that waits for a debugger gets one."""

    def attach(self, files: RunFiles, qemu: Popen[bytes]) -> AbstractContextManager[Intercepting]:
        """Attach and let the machine run; detach at the end of the block."""


def run_machine(
    spec: MachineSpec,
    qemu: Qemu,
    program: str,
    run_dir: Path,
    limits: Limits,
    progress: Progress,
    facts: Mapping[str, object] | None = None,
    interception: Interception | None = None,
) -> Outcome:
    """Run ``program`` on a machine and return what came out of it.

    ``run_dir`` is made (mode 0700); if it exists it must be empty.  ``facts`` is what
    ``run.json`` shall say beside the machine (scenario, uapi, command).  ``progress``
    gets a status whenever the machine has come further.  ``interception`` attaches to a
    machine with ``gdbstub``.  Whatever happens no process is left behind, and RAM and
    initramfs are removed.

    Raises MachineLost if the machine did not come to its regular end, UsageError for a
    run directory in use, InfrastructureError for a full disk or missing files.
    """
    files = RunFiles(run_dir.absolute())
    _prepare(files, spec, program)
    record = Record(files.run, spec, qemu, program, facts or {})
    with ExitStack() as stack:
        stack.callback(_remove, files.initramfs, files.gdb_socket)
        stack.enter_context(machine_ram(files.ram, spec.memory << 20))
        machine = _Machine(spec, qemu, files, limits, progress, stack, record)
        try:
            if interception is not None:
                machine.intercept(interception, stack)
            loss = machine.watch()
        except BaseException as error:
            record.finish("interrupted", type(error).__name__, None)
            raise
        outcome = machine.outcome()
        if outcome.shared_console:
            shutil.copyfile(files.console, files.agent)
        if loss is not None:
            record.finish("lost", f"{loss[0]}: {loss[1]}", outcome)
            raise MachineLost(*loss, outcome)
        record.finish("complete", "", outcome)
        return outcome


def _prepare(files: RunFiles, spec: MachineSpec, program: str) -> None:
    directory = files.directory
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        if any(directory.iterdir()):
            raise UsageError(f"the run directory {directory} is not empty: name another one")
        free = shutil.disk_usage(directory).free
        if free < _SPARE:
            raise InfrastructureError(
                f"not enough space for a run in {directory}: "
                f"{free >> 20} MiB are free, {_SPARE >> 20} MiB are needed"
            )
        files.program.write_text(program)
    except OSError as error:
        raise file_trouble("prepare the run directory", directory, error) from error
    write_initramfs(files.initramfs, spec.agent, program)


@contextmanager
def machine_ram(path: Path, size: int) -> Iterator[None]:
    """The machine's RAM under a name that QEMU, the plugin and we can open.

    Not a file of the disk: writing back what a guest dirties is a tenth of a short run's
    time. Not /dev/shm either, where containers have 64 MB.
    """
    with ExitStack() as stack:
        try:
            fd = os.memfd_create("hdbss-ram")
            stack.callback(os.close, fd)
            os.truncate(fd, size)
            path.symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
        except OSError as error:
            raise file_trouble("make the machine's RAM", path, error) from error
        stack.callback(_remove, path)
        yield


def _remove(*paths: Path) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def _console_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair instead of a path: no name to guess, none that is too long."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def _flush_service(spec: MachineSpec, files: RunFiles, stack: ExitStack) -> FlushService | None:
    """What answers the plugin at its stops; it ends after QEMU."""
    if spec.flushes is None or spec.plugin is None or not spec.trace:
        return None
    service = FlushService(kernel_watch(spec.flushes, files))
    stack.callback(service.close)
    return service


class _Machine:
    """A started machine; ends with the ExitStack it was given."""

    def __init__(
        self,
        spec: MachineSpec,
        qemu: Qemu,
        files: RunFiles,
        limits: Limits,
        progress: Progress,
        stack: ExitStack,
        record: Record,
    ) -> None:
        self._files, self._limits, self._progress = files, limits, progress
        self._boot = BootLog()
        self._agent, self._shared = Decoder(), Decoder(shared=True)
        self._agent_frames: list[Frame] = []
        self._shared_frames: list[Frame] = []
        self._agent_tail = FileTail(files.agent)
        self._lines = sum(1 for _ in files.program.open())
        self._told, self._told_at = "", 0.0
        self._leaving: float | None = None
        self._records = 0
        self._trace_seen = 0.0
        self._intercepting: Intercepting | None = None
        ours, theirs = stack.enter_context(_console_pair())
        console = f"socket,fd={theirs.fileno()}"
        inherited = [theirs.fileno()]
        self._flushes = _flush_service(spec, files, stack)
        if self._flushes is not None:
            inherited.append(self._flushes.theirs.fileno())
        argv = compose(spec, qemu.argv_prefix, files.directory, console, *inherited[1:])
        record.start(argv)
        log = stack.enter_context(files.qemu.open("wb"))
        self._watchdog = Watchdog()
        self._process: Popen[bytes] = stack.enter_context(
            child(argv, stdout=log, cwd=files.directory, pass_fds=inherited)
        )
        theirs.close()  # or the end of QEMU would not be the end of the stream
        if self._flushes is not None:
            self._flushes.start()
        self._console = Console(ours.fileno(), self._boot, self._on_console)

    def intercept(self, interception: Interception, stack: ExitStack) -> None:
        """Attach what answers the machine's stops."""
        try:
            self._intercepting = stack.enter_context(
                interception.attach(self._files, self._process)
            )
            self._intercepting.meanwhile(lambda: self._console.pump(0.0))
        except InfrastructureError as error:
            self._unless_ended(error)

    def outcome(self) -> Outcome:
        """What is there now.  The agent's own port counts; without one, the console does."""
        shared = self._agent_tail.count == 0 and bool(self._shared_frames)
        frames, decoder = (
            (self._shared_frames, self._shared) if shared else (self._agent_frames, self._agent)
        )
        text = tail(self._files.qemu).splitlines()[-_QEMU_LINES:]
        return Outcome(
            self._files.directory,
            Channel(tuple(frames), tuple(decoder.problems)),
            self._boot,
            self._watchdog.elapsed,
            self._records,
            self._process.poll(),
            tuple(clean(line.encode()) for line in text),
            shared,
        )

    def watch(self) -> tuple[Loss, str] | None:
        """Stay with the machine until it ends, or until it is to be ended."""
        loss = None
        while self._process.poll() is None and loss is None:
            self._pass(_TICK)
            if self._console.ended:
                # QEMU is leaving: poll() will tell, but not from a busy loop.
                time.sleep(0.01)
            self._look()
            loss = self._over_limit()
        if loss is not None:
            end_group(self._process)  # SIGTERM first: the plugin closes its trace
        self._console.drain(5.0)
        if self._flushes is not None:
            self._flushes.finish()
        self._look(everything=True)
        self._agent.close()
        self._shared.close()
        loss = loss or ended(self.outcome())
        if loss is None and self._intercepting is not None:
            missed = self._intercepting.unfinished()
            return None if missed is None else (Loss.HOLD, missed)
        return loss

    def _pass(self, seconds: float) -> None:
        """Let the machine run for so long."""
        if self._intercepting is None:
            self._console.pump(seconds)
            return
        try:
            self._intercepting.serve(seconds)
        except InfrastructureError as error:
            self._unless_ended(error)
        self._intercepting.flush()
        self._console.pump(0.0)

    def _unless_ended(self, error: InfrastructureError) -> None:
        """Raise it; but if QEMU is what died, its own story is the better one."""
        with suppress(TimeoutExpired):
            self._process.wait(_LAST_WORDS)
        if self._process.poll() is None:
            raise error

    def _on_console(self, data: bytes) -> None:
        # The limit also here: in a flood the frames would fill the memory.
        if self._console.count <= self._limits.console_bytes:
            self._shared_frames += self._shared.feed(data)

    def _look(self, everything: bool = False) -> None:
        """Take the agent's new frames, and the signs of life."""
        while data := self._agent_tail.read():
            self._agent_frames += self._agent.feed(data)
            if not everything or self._agent_tail.count > self._limits.agent_bytes:
                break
        if everything or self._watchdog.elapsed - self._trace_seen >= _TRACE_TICK:
            self._trace_seen = self._watchdog.elapsed
            self._records = count_records(self._files.trace)
        frames = self._agent_frames or self._shared_frames
        if frames:
            self._boot.reach(Stage.AGENT, self._watchdog.elapsed)
        stops = 0 if self._intercepting is None else self._intercepting.stops
        self._watchdog.see(self._console.count, self._agent_tail.count, self._records, stops)
        self._tell(frames)

    def _tell(self, frames: list[Frame]) -> None:
        begin = next((f for f in reversed(frames[-8:]) if isinstance(f, Begin)), None)
        text, elapsed = self._told, self._watchdog.elapsed
        if begin is not None:
            text = f"line {begin.line} of {self._lines}: {begin.op}"
        elif not frames:
            text = str(self._boot.stage)
        if text != self._told:
            self._told, self._told_at = text, elapsed
            self._progress.status(text)
        elif elapsed - self._told_at >= _REPEAT:
            self._told_at = elapsed
            self._progress.status(f"{text}, {elapsed:.0f} s")

    def _over_limit(self) -> tuple[Loss, str] | None:
        limits, elapsed = self._limits, self._watchdog.elapsed
        panic = self._boot.panic
        done = self._agent.finished or (self._shared.finished and not self._agent_frames)
        if panic is not None or done:
            if self._leaving is None:
                self._leaving = elapsed
            if elapsed - self._leaving > limits.leave:
                if panic is not None:
                    return panicked(self.outcome(), panic)
                return Loss.HANG, "the machine does not power off after the agent's bye"
        if self._console.count > limits.console_bytes:
            return Loss.FLOOD, f"more than {limits.console_bytes >> 20} MiB on the console"
        if self._agent_tail.count > limits.agent_bytes:
            return Loss.FLOOD, f"more than {limits.agent_bytes >> 20} MiB from the agent"
        if Stage.AGENT not in self._boot.reached and elapsed > limits.boot:
            return Loss.HANG, (
                f"the agent is not up after {limits.boot:.0f} s, last stage: {self._boot.stage}"
            )
        if self._watchdog.stalled > limits.stall:
            return Loss.HANG, (
                f"no console output, no frame and no trace record for {limits.stall:.0f} s, "
                f"{where(self.outcome())}"
            )
        trouble = None if self._intercepting is None else self._intercepting.trouble()
        if trouble is not None:
            return Loss.HOLD, trouble
        if elapsed > limits.total:
            return Loss.TIMEOUT, f"not done after {limits.total:.0f} s, {where(self.outcome())}"
        return None


__all__ = ["Limits", "MachineLost", "Outcome", "run_machine"]
