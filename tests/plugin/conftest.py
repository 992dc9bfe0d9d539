# SPDX-License-Identifier: GPL-2.0-or-later
"""What the plugin's tests share: QEMU, the plugin, the bare-metal programs, a machine for them."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qemu_model import ktap
from qemu_model.machine.baremetal import FW_CFG, MEMORY
from qemu_model.machine.cache import Cache, default_root
from qemu_model.machine.command import MACHINE, SANDBOX, Mode, accelerator, quote
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.qemu import Qemu, find_qemu
from qemu_model.machine.tools import cross_prefix
from qemu_model.trace import Trace, read_trace

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "qemu_model" / "plugin"
BARE = Path(__file__).parent / "bare"
CONFORMANCE = ROOT / "guest_images" / "conformance"
BUILD_LIMIT = 300.0
RUN_LIMIT = 120.0


@dataclass(frozen=True)
class BareRun:
    """What a bare-metal program left: its lines, QEMU's stderr, exit code, trace."""

    lines: tuple[str, ...]
    stderr: str
    code: int
    directory: Path

    @property
    def trace_file(self) -> Path:
        return self.directory / "trace.bin"

    @property
    def trace(self) -> Trace:
        return read_trace(self.trace_file)

    @property
    def report(self) -> ktap.Report:
        """The program's KTAP report."""
        return ktap.parse(self.lines)

    @property
    def failed(self) -> list[str]:
        """The names of the tests that did not pass, and every line that is no KTAP."""
        report = self.report
        return [
            *(test.name for test in report.tests if test.outcome is not ktap.Outcome.PASS),
            *report.strange,
        ]


@dataclass(frozen=True)
class Bench:
    """QEMU, the plugin and the programs, ready to be combined."""

    qemu: Qemu
    plugin: Path
    programs: Path
    conformance: Path

    def argv(
        self,
        program: str,
        directory: Path,
        *,
        smp: int = 1,
        mode: Mode = Mode.PARALLEL,
        plugin_options: str | None = None,
        extra: tuple[str, ...] = (),
    ) -> list[str]:
        """Compose the command; ``plugin_options`` None: RAM and trace, "": no plugin at all.

        ``program`` is one of ``bare``, or names tests of the conformance program.
        """
        image, parameters = self.programs / f"{program}.elf", "stops=no"
        if not image.exists():
            image, parameters = self.conformance, f"tests={program}"
        ram = directory / "ram"
        if plugin_options is None:
            plugin_options = f"ram={quote(ram)},trace={quote(directory / 'trace.bin')}"
        backend = f"memory-backend-file,id=m0,size={MEMORY}M,share=on,mem-path={quote(ram)}"
        return [
            *self.qemu.argv_prefix,
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-sandbox", SANDBOX, "-seed", "1", "-M", MACHINE, "-cpu", "max"),
            *("-m", f"{MEMORY}M", "-object", backend, "-smp", str(smp)),
            *accelerator(mode),
            *("-serial", "stdio"),
            *(["-plugin", f"{quote(self.plugin)},{plugin_options}"] if plugin_options else []),
            *("-kernel", str(image)),
            *("-fw_cfg", f"name={FW_CFG},string={quote(parameters)}"),
            *extra,
        ]

    def run(
        self,
        program: str,
        directory: Path,
        *,
        smp: int = 1,
        mode: Mode = Mode.PARALLEL,
        plugin_options: str | None = None,
        extra: tuple[str, ...] = (),
    ) -> BareRun:
        """Run a program to its end; a run that does not end fails the test."""
        directory.mkdir(parents=True, exist_ok=True)
        argv = self.argv(
            program, directory, smp=smp, mode=mode, plugin_options=plugin_options, extra=extra
        )
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RUN_LIMIT,
            check=False,
        )
        (directory / "ram").unlink(missing_ok=True)
        return BareRun(
            tuple(done.stdout.decode(errors="replace").splitlines()),
            done.stderr.decode(errors="replace"),
            done.returncode,
            directory,
        )


Make = Callable[..., Path]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Run make in one of our directories with an output directory of its own."""

    def run(where: Path, *words: str) -> Path:
        out = tmp_path_factory.mktemp("build")
        done = subprocess.run(
            ["make", "-s", "-C", str(where), f"O={out}", *words],
            env=os.environ | {"CROSS_COMPILE": cross_prefix()},
            capture_output=True,
            text=True,
            timeout=BUILD_LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return out

    return run


@pytest.fixture(scope="session")
def plugin(make: Make) -> Path:
    """The plugin, built from this tree."""
    return make(PLUGIN) / "libhdbss.so"


@pytest.fixture(scope="session")
def bench(make: Make, plugin: Path) -> Bench:
    """A QEMU with the right plugin API, from PATH or the cache, and all programs."""
    qemu = find_qemu(Cache(default_root()), SilentProgress())
    return Bench(qemu, plugin, make(BARE), make(CONFORMANCE) / "conformance.elf")
