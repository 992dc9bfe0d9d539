# SPDX-License-Identifier: GPL-2.0-or-later
"""Flushes of a real kernel are watched: by INDEX, by a function's return, or not at all."""

from dataclasses import replace
from pathlib import Path

from qemu_model.checkers.judge import judge
from qemu_model.machine.command import KernelImage
from qemu_model.machine.progress import SilentProgress
from qemu_model.report.text import block
from qemu_model.run import load
from qemu_model.runner import Bench, run_scenario
from qemu_model.scenarios.catalogue import select
from tests.system.conftest import hdbss, one_line


def test_the_return_of_a_function_completes_a_flush(tmp_path: Path) -> None:
    done = hdbss("run", "flush.request", "--flush-symbol", "hdbss_drain", "--keep", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run = load(tmp_path / "flush.request.parallel")
    assert run.about.command.endswith(" --flush-symbol hdbss_drain")
    assert run.flushes.symbol == "hdbss_drain" and run.flushes.flushes
    for flush in run.flushes.flushes:
        assert flush.error == "" and flush.clean == () and flush.place.startswith("hdbss_drain+")
        assert flush.began < flush.seq < flush.seen
        assert flush.noted == flush.index == len(flush.entries)
    assert judge(run).skipped == {}


def test_a_function_that_does_not_exist_is_told_before_the_run(tmp_path: Path) -> None:
    done = hdbss("run", "flush.request", "--flush-symbol", "drain_hdbss", "--keep", tmp_path)
    assert done.returncode == 2
    assert "has no such symbol" in one_line(done)
    assert list(tmp_path.iterdir()) == []


def test_another_kernels_vmlinux_is_noticed(prepared: Bench, tmp_path: Path) -> None:
    """Its banner is not the one in memory; the run goes on, and says so."""
    assert prepared.flushes is not None
    other = replace(prepared.flushes.kernel, banner=b"Linux version 5.15.0 ")
    flushes = replace(prepared.flushes, kernel=other)
    (scenario,) = select(["flush.request"])
    bench = replace(prepared, flushes=flushes, keep=tmp_path)
    result = run_scenario(bench, scenario, SilentProgress())
    assert result.verdict == "agree", block(result)
    for checker in ("flushed", "srcu", "buffer"):
        assert "the running kernel is not that of vmlinux" in result.unchecked[checker]


def test_a_vmlinux_of_the_same_version_and_another_build_is_refused(
    prepared: Bench, tmp_path: Path
) -> None:
    """Its banner is the same, at the same address; one instruction is another."""
    assert prepared.kernel.vmlinux is not None
    data = bytearray(prepared.kernel.vmlinux.read_bytes())
    data[data.index(b"Linux version ") - (1 << 20)] ^= 1  # somewhere in the code
    other = tmp_path / "vmlinux"
    other.write_bytes(data)
    done = hdbss("run", "flush.request", "--kernel", prepared.kernel.image, "--vmlinux", other)
    assert done.returncode == 3
    assert "does not match the kernel" in one_line(done)


def test_without_vmlinux_the_run_goes_on(prepared: Bench, tmp_path: Path) -> None:
    kernel = KernelImage(prepared.kernel.image, None, prepared.kernel.cap, "no vmlinux")
    (scenario,) = select(["flush.request"])
    bench = replace(prepared, kernel=kernel, flushes=None, unwatched="no vmlinux was given")
    result = run_scenario(replace(bench, keep=tmp_path), scenario, SilentProgress())
    assert result.verdict == "agree", block(result)
    assert result.unchecked == dict.fromkeys(("flushed", "srcu", "buffer"), "no vmlinux was given")
    for name in ("flushes.jsonl", "buffers.jsonl"):
        assert not (Path(result.directory) / name).exists()
