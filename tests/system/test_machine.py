# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine with a real QEMU and a real kernel: repeatable, and lost in each known way."""

import os
import shutil
import signal
import struct
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.channel import Pages, Result, What
from qemu_model.machine.command import KernelImage, MachineSpec, Mode, RunFiles
from qemu_model.machine.console import Stage
from qemu_model.machine.lost import Loss, MachineLost, Outcome
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.tools import cross_prefix
from qemu_model.machine.vm import Limits, run_machine
from qemu_model.runner import Bench

PROGRAM = """uapi cap=0
vm
vcpu 0
slot 0 gpa=0x80000000 pages=512 mem=anon log
run 0 stride gpa=0x80000000 count=100 stride=4096 value=1 width=8
get 0
destroy
"""


def spec_of(bench: Bench, mode: Mode = Mode.PARALLEL, smp: int = 2) -> MachineSpec:
    return MachineSpec(bench.kernel, bench.agent, bench.plugin, mode=mode, smp=smp)


def run(bench: Bench, directory: Path, spec: MachineSpec, limits: Limits | None = None) -> Outcome:
    return run_machine(spec, bench.qemu, PROGRAM, directory, limits or Limits(), SilentProgress())


def lost(
    bench: Bench, directory: Path, spec: MachineSpec, limits: Limits | None = None
) -> MachineLost:
    with pytest.raises(MachineLost) as caught:
        run(bench, directory, spec, limits)
    return caught.value


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("smp", [1, 8])
def test_a_program_runs(prepared: Bench, tmp_path: Path, mode: Mode, smp: int) -> None:
    outcome = run(prepared, tmp_path / "run", spec_of(prepared, mode, smp))
    outcome.channel.require_complete()
    assert [f.ret for f in outcome.channel.frames if isinstance(f, Result)] == [0] * 7
    reported = [f for f in outcome.channel.frames if isinstance(f, Pages)]
    assert [(f.what, f.ranges) for f in reported] == [(What.REPORTED, ((0, 99),))]
    assert set(outcome.boot.reached) == set(Stage) - {Stage.STARTED}
    assert outcome.boot.trouble == []
    assert outcome.records > 0


@pytest.mark.parametrize("smp", [1, 2])
def test_deterministic_runs_are_equal_byte_for_byte(
    prepared: Bench, tmp_path: Path, smp: int
) -> None:
    spec = spec_of(prepared, Mode.DETERMINISTIC, smp)
    first, second = RunFiles(tmp_path / "a"), RunFiles(tmp_path / "another-name")
    for files in (first, second):
        run(prepared, files.directory, spec)
    assert first.trace.read_bytes() == second.trace.read_bytes()
    assert first.agent.read_bytes() == second.agent.read_bytes()
    assert first.console.read_bytes() == second.console.read_bytes()


def test_a_kernel_that_panics(prepared: Bench, tmp_path: Path) -> None:
    spec = replace(spec_of(prepared), cmdline=("rdinit=/nothing",))
    error = lost(prepared, tmp_path / "run", spec)
    assert error.kind in (Loss.PANIC, Loss.NO_AGENT)
    # Which words it dies with depends on whether the kernel knows block devices.
    assert any(
        words in error.headline
        for words in ("Unable to mount root fs", "No working init found", "/nothing")
    )
    assert any("Kernel panic" in line for line in error.last_lines)


def test_a_kernel_without_kvm(prepared: Bench, tmp_path: Path) -> None:
    spec = replace(spec_of(prepared), cmdline=("kvm-arm.mode=none",))
    error = lost(prepared, tmp_path / "run", spec)
    assert error.kind is Loss.NO_KVM
    assert "no /dev/kvm (KVM disabled from command line)" in error.headline


def branch_to_itself(path: Path) -> Path:
    """The smallest Image that never ends (Documentation/arch/arm64/booting.rst)."""
    head = struct.pack("<IIQQQQQQ4sI", 0x14000000, 0, 0, 0x10000, 2, 0, 0, 0, b"ARM\x64", 0)
    path.write_bytes(head.ljust(0x1000, b"\0"))
    return path


def test_a_kernel_that_hangs_before_init(prepared: Bench, tmp_path: Path) -> None:
    image = branch_to_itself(tmp_path / "Image")
    spec = replace(spec_of(prepared), kernel=KernelImage(image, None, None, "hangs"))
    error = lost(prepared, tmp_path / "run", spec, Limits(boot=5))
    assert error.kind is Loss.HANG
    assert "the agent is not up after 5 s, last stage: QEMU started" in error.headline


def compiled(directory: Path, body: str) -> Path:
    """An /init of a few instructions."""
    source, program = directory / "init.c", directory / "init"
    source.write_text(f"void _start(void) {{ {body} }}\n")
    compiler = shutil.which(f"{cross_prefix()}gcc")
    assert compiler is not None
    subprocess.run([compiler, "-nostdlib", "-static", "-o", program, source], check=True)
    return program


@pytest.mark.parametrize(
    ("body", "words"),
    [
        # exit(3); a store to address 0
        ('__asm__("mov x0, #3\\n mov x8, #93\\n svc #0");', "exitcode=0x00000300"),
        ("*(volatile int *)0 = 1;", "exitcode=0x0000000b"),
    ],
)
def test_an_agent_that_dies(prepared: Bench, tmp_path: Path, body: str, words: str) -> None:
    spec = replace(spec_of(prepared), agent=compiled(tmp_path, body))
    error = lost(prepared, tmp_path / "run", spec)
    assert error.kind is Loss.AGENT
    assert words in error.headline


def test_an_agent_that_hangs(prepared: Bench, tmp_path: Path) -> None:
    spec = replace(spec_of(prepared), agent=compiled(tmp_path, "for (;;) ;"))
    error = lost(prepared, tmp_path / "run", spec, Limits(stall=4))
    assert error.kind is Loss.HANG
    assert "last stage: init started" in error.headline
    # The plugin was given the time to close its trace.
    assert error.outcome.records > 0
    assert not RunFiles(tmp_path / "run").ram.exists()


def test_a_qemu_that_is_killed(prepared: Bench, tmp_path: Path) -> None:
    directory = tmp_path / "run"

    def kill() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    words = process.read_bytes().split(b"\0")
                except OSError:
                    continue
                # The initramfs names this run, "-accel" QEMU itself.
                if str(RunFiles(directory).initramfs).encode() in words and b"-accel" in words:
                    os.kill(int(process.parent.name), signal.SIGKILL)
                    return
            time.sleep(0.05)

    thread = threading.Thread(target=kill)
    thread.start()
    error = lost(prepared, directory, spec_of(prepared))
    thread.join()
    assert error.kind is Loss.QEMU
    assert "QEMU was killed by SIGKILL" in error.headline


def test_a_plugin_that_qemu_refuses(prepared: Bench, tmp_path: Path) -> None:
    bad = tmp_path / "libhdbss.so"
    bad.write_bytes(b"no library")
    error = lost(prepared, tmp_path / "run", replace(spec_of(prepared), plugin=bad))
    assert error.kind is Loss.QEMU
    assert "Could not load plugin" in error.headline
