# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb mode with a real gdb, a real QEMU and a real kernel; and each way in which it can fail."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model import session
from qemu_model.channel import Pages, What
from qemu_model.errors import InfrastructureError
from qemu_model.gdbstub import attach, mi
from qemu_model.gdbstub.attach import GdbInterception
from qemu_model.machine.cache import default_root
from qemu_model.machine.command import MachineSpec, Mode, RunFiles
from qemu_model.machine.lost import Loss, MachineLost, Outcome
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.qemu import PLUGIN_API, PROGRAM, identify
from qemu_model.machine.tools import cross_prefix
from qemu_model.machine.vm import Limits, run_machine
from qemu_model.runner import Bench
from qemu_model.trace import Kind, count_records, read_trace
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.sites import Role
from tests.system.conftest import hdbss, one_line
from tests.system.test_machine import compiled

PAGES = 40
PROGRAM_TEXT = f"""uapi cap={{cap}}
vm
vcpu 0
slot 0 gpa=0x80000000 pages=512 mem=anon
hdbss on order=0
log 0 on
run 0 stride gpa=0x80000000 count={PAGES} stride=4096 value=1 width=8
get 0
run 0 stride gpa=0x80000000 count={PAGES} stride=4096 value=2 width=8
get 0
hdbss off
destroy
"""
SOON = 30
"""Records after which somebody dies: the guest is dirtying pages by then."""


@pytest.fixture(scope="module")
def bench() -> Bench:
    """The default kernel in gdb mode, on the QEMU of the distribution if there is one."""
    return session.prepare(session.Choice(mode=Mode.GDB), SilentProgress())


def spec_of(bench: Bench) -> MachineSpec:
    return MachineSpec(bench.kernel, bench.agent, None, mode=Mode.GDB, smp=1, gdbstub=True)


def run(
    bench: Bench, directory: Path, spec: MachineSpec | None = None, limits: Limits | None = None
) -> Outcome:
    spec = spec or spec_of(bench)
    text = PROGRAM_TEXT.format(cap=bench.uapi.number)
    return run_machine(
        spec, bench.qemu, text, directory, limits or Limits(), SilentProgress(),
        interception=GdbInterception(spec),
    )  # fmt: skip


def inside(directory: Path) -> dict[int, bytes]:
    """The processes that work in a directory, by number, with their command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").resolve().is_relative_to(directory):
                found[int(process.name)] = (process / "cmdline").read_bytes()
    return found


def left(directory: Path) -> dict[int, bytes]:
    """Those that are still there after a moment."""
    end = time.monotonic() + 10
    while inside(directory) and time.monotonic() < end:
        time.sleep(0.1)
    return inside(directory)


class Killer:
    """Sends a signal to the gdb or the QEMU of a run as soon as its trace has grown."""

    def __init__(
        self,
        directory: Path,
        words: bytes,
        number: signal.Signals,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory, self._words, self._number = directory, words, number
        self._before = before
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self.hit = False

    def _wait(self) -> None:
        end = time.monotonic() + 120
        while count_records(RunFiles(self._directory).trace) < SOON:
            if time.monotonic() > end:
                return
            time.sleep(0.02)
        self._before()
        for process, command in inside(self._directory).items():
            if self._words in command:
                os.kill(process, self._number)
                self.hit = True

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


GDB, QEMU = b"--interpreter=mi", b"-accel"


# --- what works ---------------------------------------------------------------


def test_a_program_runs(bench: Bench, tmp_path: Path) -> None:
    outcome = run(bench, tmp_path / "run")
    outcome.channel.require_complete()
    reported = [f for f in outcome.channel.frames if isinstance(f, Pages)]
    assert [(f.what, f.ranges) for f in reported] == [(What.REPORTED, ((0, PAGES - 1),))] * 2
    files = RunFiles(tmp_path / "run")
    trace = read_trace(files.trace)
    assert trace.header.writer == "gdbstub" and trace.end == 0
    assert sum(record[1] == Kind.APPEND for record in trace) == PAGES
    assert files.gdb_log.exists() and not files.gdb_socket.exists()
    assert left(tmp_path) == {}


def test_scenarios_agree_and_two_run_at_once(tmp_path: Path) -> None:
    names = ("bitmap.random", "huge.thp", "uapi.no-feature", "uapi.nvhe")
    done = hdbss("run", "--mode", "gdb", "--jobs", 2, "--keep", tmp_path, *names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 scenarios: 3 agree, 1 skipped" in done.stdout
    assert "skipped uapi.nvhe: the gdbstub interceptor serves VHE kernels" in done.stdout
    again = hdbss("check", tmp_path / "huge.thp.gdb")
    assert again.returncode == 0, again.stdout
    assert "small form" in (tmp_path / "huge.thp.gdb" / "program.txt").read_text()
    assert left(tmp_path) == {}


def test_any_name_will_do_for_the_run_directory(bench: Bench, tmp_path: Path) -> None:
    directory = tmp_path / "with space, and comma=1" / ("long" * 30)
    assert len(str(directory)) > 108  # more than the address of a socket holds
    assert run(bench, directory).channel.bye


# --- who dies -----------------------------------------------------------------


def test_a_gdb_that_is_killed(bench: Bench, tmp_path: Path) -> None:
    with (
        Killer(tmp_path / "run", GDB, signal.SIGKILL) as killer,
        pytest.raises(InfrastructureError, match=r"gdb has ended \(status -9\)") as caught,
    ):
        run(bench, tmp_path / "run")
    assert killer.hit and not isinstance(caught.value, MachineLost)
    assert left(tmp_path) == {}


def test_a_gdb_that_hangs(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mi.COMMAND_LIMIT == 30.0

    def hurry() -> None:
        monkeypatch.setattr(mi, "COMMAND_LIMIT", 3.0)
        monkeypatch.setattr(mi, "SILENCE", 1.0)
        time.sleep(0.5)  # what was asked with the long limit is answered by then

    with (
        Killer(tmp_path / "run", GDB, signal.SIGSTOP, hurry) as killer,
        pytest.raises(InfrastructureError, match=r"gdb does not answer to|gdb does not take"),
    ):
        run(bench, tmp_path / "run")
    assert killer.hit
    assert left(tmp_path) == {}


def test_a_qemu_that_is_killed(bench: Bench, tmp_path: Path) -> None:
    with (
        Killer(tmp_path / "run", QEMU, signal.SIGKILL) as killer,
        pytest.raises(MachineLost, match="QEMU was killed by SIGKILL") as caught,
    ):
        run(bench, tmp_path / "run")
    assert killer.hit and caught.value.kind is Loss.QEMU
    assert left(tmp_path) == {}


def test_ctrl_c(bench: Bench, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "qemu_model.cli", "run", "--mode", "gdb", "bitmap.stride"]
    command = subprocess.Popen(
        [*words, "--keep", str(tmp_path / "runs")],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    trace = tmp_path / "runs" / "bitmap.stride.gdb" / "trace.bin"
    end = time.monotonic() + 120
    while count_records(trace) < SOON and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(command.pid, signal.SIGINT)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 130, errors
    assert errors.decode().splitlines()[-1] == "hdbss: interrupted; nothing is left running"
    assert left(tmp_path) == {}


# --- the kernel ---------------------------------------------------------------


def test_a_kernel_that_panics(bench: Bench, tmp_path: Path) -> None:
    spec = replace(spec_of(bench), cmdline=("rdinit=/nothing",))
    with pytest.raises(MachineLost) as caught:
        run(bench, tmp_path / "run", spec)
    assert caught.value.kind in (Loss.PANIC, Loss.NO_AGENT)
    assert any("Kernel panic" in line for line in caught.value.last_lines)


def test_a_machine_that_hangs(bench: Bench, tmp_path: Path) -> None:
    body = '__asm__("hint #127"); for (;;) ;'
    spec = replace(spec_of(bench), agent=compiled(tmp_path, body))
    with pytest.raises(MachineLost, match="last stage: init started") as caught:
        run(bench, tmp_path / "run", spec, Limits(stall=5))
    assert caught.value.kind is Loss.HANG
    assert left(tmp_path / "run") == {}


def test_an_image_that_is_not_what_vmlinux_says(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the file had been replaced after it was compared: memory is looked at too."""
    kernel = attach.kernel_code(bench.kernel.vmlinux or Path(), bench.kernel.image)
    site = kernel.sites.of(Role.MSR)[0]
    data = bytearray(bench.kernel.image.read_bytes())
    data[site - kernel.text] ^= 1
    image = tmp_path / "Image"
    image.write_bytes(data)
    monkeypatch.setattr(Vmlinux, "require_image", lambda self, image: None)
    spec = replace(spec_of(bench), kernel=replace(bench.kernel, image=image))
    with pytest.raises(
        InfrastructureError, match=f"vmlinux does not match the running kernel: at {site:#x} "
    ):
        run(bench, tmp_path / "run", spec)


# --- before the start ---------------------------------------------------------


@pytest.fixture(scope="module")
def own(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a user's own Image and vmlinux."""
    directory = tmp_path_factory.mktemp("own")
    assert bench.kernel.vmlinux is not None
    shutil.copyfile(bench.kernel.image, directory / "Image")
    shutil.copyfile(bench.kernel.vmlinux, directory / "vmlinux")
    yield directory
    shutil.rmtree(directory)


def refused(*words: object, **environment: str) -> tuple[int, str]:
    """Exit code and the one line of a command that does not even start a machine."""
    done = hdbss("run", "uapi.matrix", "--mode", "gdb", *words, **environment)
    return done.returncode, one_line(done)


def test_no_gdb(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for directory in reversed(os.environ["PATH"].split(":")):
        for program in Path(directory).glob("*"):
            if not program.name.startswith("gdb"):
                with suppress(FileExistsError):
                    (tools / program.name).symlink_to(program)
    code, line = refused(PATH=str(tools))
    assert (code, line) == (3, "hdbss: there is no gdb-multiarch: apt-get install gdb-multiarch")


def test_no_vmlinux(own: Path) -> None:
    code, line = refused("--kernel", own / "Image", "--uapi", "cap:1")
    assert code == 2
    assert line.startswith("hdbss: --mode gdb needs the vmlinux of ") and "--vmlinux" in line


def changed(own: Path, name: str, change: Callable[[bytearray], None]) -> Path:
    data = bytearray((own / "vmlinux").read_bytes())
    change(data)
    (own / name).write_bytes(data)
    return own / name


def test_a_vmlinux_without_symbols(own: Path) -> None:
    stripped = own / "stripped"
    subprocess.run([f"{cross_prefix()}strip", "-o", stripped, own / "vmlinux"], check=True)
    code, line = refused("--kernel", own / "Image", "--vmlinux", stripped)
    assert (code, "it has no symbols; give the one of the kernel build" in line) == (2, True)


def test_a_vmlinux_of_another_build(own: Path) -> None:
    with Path(own / "vmlinux").open("rb") as file:
        at = file.read().index(b"Linux version ") - (1 << 20)  # somewhere in the code

    def flip(data: bytearray) -> None:
        data[at] ^= 1

    other = changed(own, "other", flip)
    code, line = refused("--kernel", own / "Image", "--vmlinux", other)
    assert code == 3
    assert "does not match the kernel" in line and "give the two files of one build" in line


# --- the way out of a host without a QEMU for the plugin ----------------------


def test_without_a_qemu_for_the_plugin_it_goes_on_through_gdb(bench: Bench, tmp_path: Path) -> None:
    """The command as a user types it: no fetch, no plugin, and a verdict all the same."""
    installed = shutil.which(PROGRAM)
    if installed is None or identify((installed,), "PATH").plugin_api == PLUGIN_API:
        pytest.skip("the QEMU of this host is not an old one")
    fakes, cache = tmp_path / "bin", tmp_path / "cache" / "hdbss"
    fakes.mkdir()
    cache.mkdir(parents=True)
    for name in ("apt-get", "pkg-config"):
        (fakes / name).write_text("#!/bin/sh\necho 'E: not today' >&2\nexit 100\n")
        (fakes / name).chmod(0o755)
    for kind in ("agent", "kernel-default", "kernel-map"):
        (cache / kind).symlink_to(default_root() / kind)
    done = hdbss(
        "run", "bitmap.random",
        PATH=f"{fakes}:{os.environ['PATH']}", XDG_CACHE_HOME=str(tmp_path / "cache"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stderr.splitlines() if "going on with --mode gdb" in line]
    assert len(told) == 1 and "which is slower" in told[0]
    assert "1 scenario: 1 agree" in done.stdout or "1 scenarios: 1 agree" in done.stdout
    assert not (cache / "plugin").exists() and not any((cache / "qemu").glob("*/usr"))
