# SPDX-License-Identifier: GPL-2.0-or-later
"""``hdbss check --against``: two kept runs, one report, the right code."""

import json
from pathlib import Path

import pytest

from qemu_model.cli import main
from qemu_model.report.result import Exit
from qemu_model.trace import Kind
from tests.unit.checkers.factory import (
    Event,
    append,
    channel_bytes,
    entry,
    event,
    leave,
    make_trace,
    mark,
)

PROGRAM = """uapi cap=300
vm
vcpu 0
slot 0 gpa=0x40000000 pages=8 mem=anon log
run 0 stride gpa=0x40000000 count=2 stride=4096 value=1
get 0
"""
SAYS = {6: ["pages slot=0 what=reported list=0-1"]}
ENTRIES = [append(0, 0), append(1, 1)]


def kept(
    directory: Path,
    mode: str,
    entries: list[Event],
    *,
    program: str = PROGRAM,
    how: str = "complete",
) -> Path:
    """A run directory as ``run --keep`` leaves it."""
    directory.mkdir()
    record = {
        "scenario": "by.hand",
        "feature": True,
        "shared_console": False,
        "machine": {"mode": mode, "seed": 3},
        "kernel": {"description": "a kernel"},
        "command": f"hdbss run by.hand --mode {mode}",
        "end": {"how": how, "why": "", "seconds": 1.5},
    }
    events = [mark(5), entry(), *entries, leave(2), mark(5, 1), mark(6)]
    (directory / "run.json").write_text(json.dumps(record))
    (directory / "program.txt").write_text(program)
    (directory / "console.log").write_text("Booting Linux\n")
    (directory / "agent.log").write_bytes(channel_bytes(program, SAYS))
    (directory / "trace.bin").write_bytes(make_trace(events).data)
    return directory


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    return kept(tmp_path / "reference", "parallel", ENTRIES)


def test_equivalent_runs(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = kept(tmp_path / "other", "deterministic", ENTRIES)
    assert main(["check", "--against", str(reference), str(other)]) == Exit.AGREE
    out = capsys.readouterr().out
    assert out.startswith("equivalent: two runs of by.hand\n")
    for words in (str(reference), str(other), "mode parallel", "mode deterministic", "2 entries"):
        assert words in out
    assert main(["check", str(other), "--against", str(reference)]) == Exit.AGREE
    assert capsys.readouterr().out == out


def test_a_difference_is_explained(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = kept(tmp_path / "other", "deterministic", [append(0, 0), append(3, 1)])
    assert main(["check", "--against", str(reference), str(other)]) == Exit.DIVERGENCE
    out = capsys.readouterr().out
    assert out.startswith("DIFFER: two runs of by.hand\n")
    lines = [line.strip() for line in out.splitlines()]
    assert "[entries] line 5: run 0 stride gpa=0x40000000 count=2 stride=4096 value=1" in lines
    assert "reference: number 2 of 2: IPA 0x40001000 level 3 entry 0x40001007" in lines
    assert "other:     number 2 of 2: IPA 0x40003000 level 3 entry 0x40003007" in lines
    assert next(line for line in lines if line.startswith("> #")).startswith("> #5 PE 0 APPEND")
    assert "records around it in reference:" in lines and "records around it in other:" in lines
    assert "hdbss run by.hand --mode deterministic" in lines


def test_what_was_not_compared_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost, late = event(Kind.LOST, 0x4000_0000), event(Kind.LATE)
    one = kept(tmp_path / "one", "parallel", [*ENTRIES, lost, late])
    other = kept(tmp_path / "other", "deterministic", [*ENTRIES, lost, lost, late])
    assert main(["check", "--against", str(one), str(other)]) == Exit.AGREE
    assert "not compared: line 5 and what follows" in capsys.readouterr().out
    assert main(["check", "--against", str(one), str(one)]) == Exit.AGREE
    assert "not compared" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "how", "code", "words"),
    [
        (PROGRAM.replace("value=1", "value=2"), "complete", Exit.USAGE, "--small"),
        (PROGRAM, "lost", Exit.INFRASTRUCTURE, "lost"),
    ],
)
def test_runs_that_cannot_be_compared(
    reference: Path,
    tmp_path: Path,
    program: str,
    how: str,
    code: Exit,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = kept(tmp_path / "other", "parallel", ENTRIES, program=program, how=how)
    assert main(["check", "--against", str(reference), str(other)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hdbss: ") and words in line


def test_a_run_that_was_cut(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = kept(tmp_path / "other", "parallel", ENTRIES)
    (other / "trace.bin").write_bytes((other / "trace.bin").read_bytes()[:-64])
    assert main(["check", "--against", str(reference), str(other)]) == Exit.INFRASTRUCTURE
    assert "killed" in capsys.readouterr().err


def test_no_such_reference(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none"
    assert main(["check", "--against", str(missing), str(reference)]) == Exit.USAGE
    assert str(missing) in capsys.readouterr().err


def test_runs_of_pes_that_chose_differently(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = kept(tmp_path / "other", "parallel", ENTRIES)
    about = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(about | {"choices": "zero_ahead=8"}))
    assert main(["check", "--against", str(reference), str(other)]) == Exit.USAGE
    assert "made different choices" in capsys.readouterr().err
