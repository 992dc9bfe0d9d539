# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that runs a program of ours at EL2 instead of a kernel."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired

from qemu_model.errors import InfrastructureError
from qemu_model.machine.build import tail
from qemu_model.machine.child import child, end_group
from qemu_model.machine.command import MACHINE, SANDBOX, Mode, RunFiles, accelerator, quote
from qemu_model.machine.progress import Progress
from qemu_model.machine.qemu import Qemu
from qemu_model.machine.vm import Interception, machine_ram

MEMORY = 256
"""MiB; programs know where it ends."""
FW_CFG = "opt/hdbss/conformance"
"""The fw_cfg file in which a program finds its parameters."""
_CONSOLE_MAX = 1 << 20
"""Bytes that a program may print: a hundred times what ours do."""
_SUMMARY = "hdbss: PE "
"""How the plugin's lines at the end of every run begin."""
_TICK = 0.05
_LAST_WORDS = 5.0


@dataclass(frozen=True)
class BareMachine:
    """What to run, and on what.

    ``parameters`` is the text for the program, ``plugin_options`` go to the plugin beside
    RAM and trace; without ``plugin`` the PEs have no FEAT_HDBSS unless gdb gives it to them.
    """

    program: Path
    parameters: str = ""
    plugin: Path | None = None
    plugin_options: tuple[str, ...] = ()
    mode: Mode = Mode.PARALLEL
    smp: int = 1
    seed: int = 1

    def argv(self, prefix: tuple[str, ...], files: RunFiles) -> list[str]:
        """QEMU's command line, for a process in the run directory."""
        backend = f"memory-backend-file,id=m0,size={MEMORY}M,share=on,mem-path={quote(files.ram)}"
        argv = [
            *prefix,
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-sandbox", SANDBOX, "-seed", str(self.seed), "-M", MACHINE, "-cpu", "max"),
            *("-m", f"{MEMORY}M", "-object", backend, "-smp", str(self.smp)),
            *accelerator(self.mode),
            *("-chardev", f"file,id=console,path={quote(files.console)}"),
            *("-serial", "chardev:console"),
            *("-kernel", str(self.program)),
        ]
        if self.parameters:
            argv += ["-fw_cfg", f"name={FW_CFG},string={quote(self.parameters)}"]
        if self.plugin is not None:
            options = [quote(self.plugin), f"ram={quote(files.ram)}", f"trace={quote(files.trace)}"]
            argv += ["-plugin", ",".join([*options, *map(quote, self.plugin_options)])]
        if self.mode is Mode.GDB:
            argv += ["-S", "-chardev", f"socket,id=gdb,path={files.gdb_socket.name},server=on,"
                     "wait=off", "-gdb", "chardev:gdb"]  # fmt: skip
        return argv


def run_bare(
    machine: BareMachine,
    qemu: Qemu,
    files: RunFiles,
    limit: float,
    progress: Progress,
    interception: Interception | None = None,
) -> list[str]:
    """Run a program until it switches the machine off; return the lines of its console.

    The run directory must be there and empty; console, trace and QEMU's words stay in it.
    InfrastructureError if QEMU fails; after ``limit`` seconds, or when it prints without
    end, the machine is ended, and what the console has by then shows how far it came.
    """
    start = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(machine_ram(files.ram, MEMORY << 20))
        log = stack.enter_context(files.qemu.open("wb"))
        argv = machine.argv(qemu.argv_prefix, files)
        process = stack.enter_context(child(argv, stdout=log, cwd=files.directory))
        stops = None
        try:
            if interception is not None:
                stops = stack.enter_context(interception.attach(files, process))
            while (
                process.poll() is None
                and time.monotonic() - start < limit
                and _size(files.console) < _CONSOLE_MAX
            ):
                if stops is None:
                    with suppress(TimeoutExpired):
                        process.wait(_TICK)
                else:
                    stops.serve(_TICK * 4)
                lines = tail(files.console, 4096).splitlines()
                progress.status(lines[-1] if lines else "the program starts")
        except InfrastructureError:
            # QEMU's end looks like this to a debugger.
            with suppress(TimeoutExpired):
                process.wait(_LAST_WORDS)
            if process.poll() is None:
                raise
        if process.poll() is None:
            end_group(process)  # SIGTERM first: the plugin closes its trace
        elif process.returncode != 0:
            said = tail(files.qemu).splitlines()
            words = [line for line in said if not line.startswith(_SUMMARY)]
            raise InfrastructureError(
                f"QEMU ended with status {process.returncode}: {words[-1] if words else 'no words'}"
            )
    try:
        return files.console.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
