# SPDX-License-Identifier: GPL-2.0-or-later
"""The command on bad input and on runs that were kept: one clear line, the right code."""

import json
from pathlib import Path

import pytest

from qemu_model.cli import main
from qemu_model.report.result import Exit
from qemu_model.scenarios.catalogue import SCENARIOS
from tests.unit.checkers.factory import channel_bytes, make_trace, mark

PROGRAM = "uapi cap=0\nvm\n"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command left on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hdbss: ")
    return line


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A run directory as ``run --keep`` leaves it."""
    record = {
        "scenario": "by.hand",
        "feature": True,
        "shared_console": False,
        "machine": {"mode": "parallel", "seed": 3},
        "kernel": {"description": "none"},
        "command": "hdbss run by.hand",
        "end": {"how": "complete", "why": "", "seconds": 1.5},
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "program.txt").write_text(PROGRAM)
    (tmp_path / "console.log").write_text("Booting Linux\n")
    (tmp_path / "agent.log").write_bytes(channel_bytes(PROGRAM))
    (tmp_path / "trace.bin").write_bytes(make_trace([mark(1)]).data)
    return tmp_path


def test_a_kept_run_is_judged_again(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(kept)]) == Exit.AGREE
    out = capsys.readouterr().out
    assert "by.hand" in out and "1 agree" in out


def test_a_finding_is_exit_code_1(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kept / "console.log").write_text("BUG: KASAN: use-after-free in x\n")
    assert main(["check", str(kept)]) == Exit.DIVERGENCE
    out = capsys.readouterr().out
    assert "[kernel_log]" in out and "hdbss run by.hand" in out


@pytest.mark.parametrize("missing", ["run.json", "program.txt", "agent.log", "trace.bin"])
def test_a_run_with_a_file_missing(
    kept: Path, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (kept / missing).unlink()
    assert main(["check", str(kept)]) == Exit.USAGE
    assert missing in one_line(capsys)


@pytest.mark.parametrize(
    ("file", "content", "code", "words"),
    [
        ("run.json", b"{", Exit.USAGE, "run.json"),
        ("run.json", b"[]", Exit.USAGE, "run.json"),
        ("run.json", b'{"scenario": 1}', Exit.USAGE, "run.json"),
        ("trace.bin", b"", Exit.USAGE, "not a trace"),
        ("trace.bin", b"\x7fELF" + bytes(100), Exit.USAGE, "magic"),
        ("program.txt", b"# reach nothing\n", Exit.USAGE, "program line 1"),
        ("program.txt", b"get x\n", Exit.USAGE, "program line 1"),
        ("agent.log", b"", Exit.INFRASTRUCTURE, "channel"),
        ("agent.log", b"@HDBSS 1 00000000 0 hello\n", Exit.INFRASTRUCTURE, "channel"),
    ],
)
def test_a_run_with_a_foreign_file(
    kept: Path,
    file: str,
    content: bytes,
    code: Exit,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (kept / file).write_bytes(content)
    if file == "program.txt" and content.startswith(b"get"):
        (kept / "agent.log").write_bytes(channel_bytes("get x\n"))
    assert main(["check", str(kept)]) == code
    assert words in one_line(capsys)


@pytest.mark.parametrize("how", ["lost", "running", "interrupted"])
def test_a_run_that_has_no_end_has_no_verdict(
    kept: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (kept / "run.json").read_text()
    (kept / "run.json").write_text(text.replace("complete", how))
    assert main(["check", str(kept)]) == Exit.INFRASTRUCTURE
    assert how in one_line(capsys)


def test_a_truncated_trace(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (kept / "trace.bin").read_bytes()
    (kept / "trace.bin").write_bytes(data[:-64])
    assert main(["check", str(kept)]) == Exit.INFRASTRUCTURE
    assert "killed" in one_line(capsys)


def test_a_trace_with_a_hole(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (kept / "trace.bin").read_bytes()
    (kept / "trace.bin").write_bytes(data[:64] + data[128:])
    assert main(["check", str(kept)]) == Exit.USAGE
    assert "damaged" in one_line(capsys)


def test_a_channel_that_was_cut(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = (kept / "agent.log").read_bytes()
    (kept / "agent.log").write_bytes(data[: len(data) // 2])
    assert main(["check", str(kept)]) == Exit.INFRASTRUCTURE
    assert "channel is damaged" in one_line(capsys)


def test_no_such_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == Exit.USAGE
    assert "--keep" in one_line(capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "bitmap.nothing"], "hdbss list"),
        (["run", "--kernel", "/none/Image"], "/none/Image"),
        (["run", "--linux", "/none"], "/none"),
        (["run", "--vmlinux", "/none/vmlinux"], "--kernel"),
        (["run", "--debug", "--linux", "/none"], "exclude"),
        (["run", "--json", "/none/report.json"], "--json"),
        (["run", "--kernel", "/etc/passwd"], "/etc/passwd"),
    ],
)
def test_wrong_arguments_are_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == Exit.USAGE
    assert said in one_line(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--mode", "fast"],
        ["run", "--uapi", "cap:x"],
        ["run", "--uapi", "cap:0"],
        ["run", "--uapi", "auto\n"],
        ["run", "--uapi", "maybe"],
        ["run", "--jobs", "0"],
        ["run", "--seed", "-1"],
        ["run", "--seed", "many"],
        ["build", "everything"],
        ["nothing"],
        [],
    ],
)
def test_values_that_no_option_takes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == Exit.USAGE
    assert "usage: hdbss" in capsys.readouterr().err


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == Exit.AGREE
    out = capsys.readouterr().out
    assert "buffer.full" in out and out.count("catches:") == len(SCENARIOS)


def test_a_bug_of_ours_is_exit_code_5(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(patterns: object) -> object:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("qemu_model.cli.select", broken)
    assert main(["run"]) == Exit.BUG
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and "please report" in err
