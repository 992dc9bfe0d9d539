# SPDX-License-Identifier: GPL-2.0-or-later
"""What the plugin's tests share: QEMU, the plugin, the bare-metal programs, a machine for them."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from qemu_model.machine.cache import Cache, default_root
from qemu_model.machine.command import MACHINE, SANDBOX, Mode, accelerator, quote
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.qemu import Qemu, find_qemu
from qemu_model.machine.tools import cross_prefix
from qemu_model.trace import Trace, read_trace

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "qemu_model" / "plugin"
BARE = Path(__file__).parent / "bare"
MEMORY = 256
"""MiB of the bare-metal machine; ``bare/hostile.c`` knows where it ends."""
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
    def failed(self) -> list[str]:
        """Every line that is neither a passed check nor a comment nor the end."""
        return [line for line in self.lines if line != "end" and line[:3] not in ("ok ", "# ")
                and line[:2] != "# "]  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """QEMU, the plugin and the programs, ready to be combined."""

    qemu: Qemu
    plugin: Path
    programs: Path

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
        """Compose the command; ``plugin_options`` None: RAM and trace, "": no plugin at all."""
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
            *("-kernel", str(self.programs / f"{program}.elf")),
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
    return Bench(qemu, plugin, make(BARE))
