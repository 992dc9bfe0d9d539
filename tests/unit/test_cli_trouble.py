# SPDX-License-Identifier: GPL-2.0-or-later
"""The exit code of commands that start machines or build, when something goes wrong on the way."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from qemu_model import cli, runner, session
from qemu_model.cli import main
from qemu_model.errors import InfrastructureError, Unsupported, UsageError
from qemu_model.machine.cache import file_trouble
from qemu_model.machine.doctor import Check
from qemu_model.report.result import Exit
from qemu_model.scenarios.scenario import Uapi
from tests.unit.fake_run import FakeMachine, fake_bench

RUN = ["run", "baseline.write-protect"]


def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: FakeMachine) -> None:
    """Let every machine of the command be ``fake``."""
    bench = fake_bench(tmp_path, uapi=Uapi("none"), keep=tmp_path / "keep")
    monkeypatch.setattr(session, "prepare", lambda choice, progress, boots=True: bench)
    monkeypatch.setattr(runner, "run_machine", fake)


@pytest.mark.parametrize(
    ("fake", "says"),
    [
        (FakeMachine(lost="Attempted to kill init!"), "kernel panic: Attempted to kill init!"),
        (FakeMachine(cut_channel=True), "the channel ends inside a frame"),
        (
            FakeMachine(error=InfrastructureError("QEMU cannot be started")),
            "QEMU cannot be started",
        ),
        (FakeMachine(error=OSError(errno.EIO, "Input/output error")), "Input/output error"),
    ],
)
def test_a_machine_that_is_lost(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fake: FakeMachine,
    says: str,
) -> None:
    machine(tmp_path, monkeypatch, fake)
    wanted = Exit.BUG if isinstance(fake.error, OSError) else Exit.INFRASTRUCTURE
    assert main(RUN) == wanted
    assert says in capsys.readouterr().out


def test_an_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(tmp_path, monkeypatch, FakeMachine(error=KeyboardInterrupt()))
    assert main(RUN) == Exit.INTERRUPTED
    assert capsys.readouterr().err.splitlines() == ["hdbss: interrupted; nothing is left running"]


def test_nothing_that_this_kernel_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(tmp_path, monkeypatch, FakeMachine())
    assert main(["run", "uapi.matrix"]) == Exit.UNSUPPORTED
    assert "skipped uapi.matrix: it means nothing" in capsys.readouterr().out


@pytest.mark.parametrize("words", [RUN, ["shell", "buffer.full"], ["bugs"], ["build"]])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no such thing"), Exit.USAGE),
        (InfrastructureError("a build failed"), Exit.INFRASTRUCTURE),
        (Unsupported("not here"), Exit.UNSUPPORTED),
        (
            file_trouble("write", Path("/cache"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
            Exit.INFRASTRUCTURE,
        ),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
    ],
)
def test_trouble_before_the_first_machine(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    error: BaseException,
    code: int,
) -> None:
    def fails(*args: object, **named: object) -> object:
        raise error

    monkeypatch.setattr(session, "prepare", fails)
    monkeypatch.setattr(session, "build", fails)
    assert main(words) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hdbss: ")


def test_a_dry_run_leaves_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(tmp_path, monkeypatch, FakeMachine())
    assert main([*RUN, "--dry-run", "--json", str(tmp_path / "report.json")]) == Exit.AGREE
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("words", "code"), [(["list"], Exit.AGREE), (["bugs", "--list"], Exit.AGREE)]
)
def test_nobody_reads_a_list_to_its_end(words: list[str], code: int) -> None:
    done = _unread(words)
    assert (done.returncode, done.stderr) == (code, "")


def test_nobody_reads_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever pipes a run into ``head`` must not take its end for an agreement."""
    machine(tmp_path, monkeypatch, FakeMachine())
    assert main(RUN) == Exit.AGREE
    capsys.readouterr()
    done = _unread(["check", str(tmp_path / "keep" / "baseline.write-protect.parallel")])
    assert done.returncode == Exit.INFRASTRUCTURE
    assert "without a verdict" in done.stderr


@pytest.mark.parametrize("words", [["list"], ["doctor"]])
def test_no_space_for_the_output(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = _hdbss(words, full)
    assert done.returncode == Exit.INFRASTRUCTURE
    assert done.stderr == "hdbss: cannot write the output: No space left on device\n"


def _unread(words: list[str]) -> "subprocess.CompletedProcess[str]":
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return _hdbss(words, writer)
    finally:
        os.close(writer)


def _hdbss(words: list[str], stdout: int | IO[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "qemu_model.cli", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        ([], Exit.AGREE),
        ([Check("gdb", False, "not found", needed=False)], Exit.AGREE),
        ([Check("flex", False, "not found", "apt install flex")], Exit.INFRASTRUCTURE),
    ],
)
def test_what_the_doctor_says(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: list[Check],
    code: int,
) -> None:
    checks = [Check("Python", True, "3.11"), *missing]
    monkeypatch.setattr(cli, "examine", lambda cache: checks)
    assert main(["doctor"]) == code
    assert capsys.readouterr().out.splitlines() == [str(check) for check in checks]
