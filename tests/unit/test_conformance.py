# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``conformance``: what the program is told, verdicts, bad input."""

import json
from pathlib import Path

import pytest

from qemu_model import conformance, ktap
from qemu_model.checkers.finding import Divergence
from qemu_model.cli import main
from qemu_model.conformance import (
    INJECT_VMID,
    Findings,
    Request,
    document,
    injection_for,
    parameters,
)
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine import images
from qemu_model.machine.baremetal import BareMachine
from qemu_model.machine.command import Mode, RunFiles
from qemu_model.model.choices import BEST, choose
from qemu_model.report.result import Exit

HEAD = ("KTAP version 1", "1..2")


def findings(*lines: str, divergences: tuple[Divergence, ...] = ()) -> Findings:
    return Findings(ktap.parse((*HEAD, *lines)), 10, divergences, 1.0)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (("ok 1 a.a", "ok 2 a.b"), Exit.AGREE),
        (("ok 1 a.a", "ok 2 a.b # SKIP no"), Exit.AGREE),
        (("ok 1 a.a # SKIP no", "ok 2 a.b # SKIP no"), Exit.UNSUPPORTED),
        (("ok 1 a.a", "not ok 2 a.b # x"), Exit.DIVERGENCE),
        (("ok 1 a.a",), Exit.INFRASTRUCTURE),
        (("not ok 1 a.a # x",), Exit.DIVERGENCE),  # a finding outweighs the missing end
        ((), Exit.INFRASTRUCTURE),
    ],
)
def test_exit_codes(lines: tuple[str, ...], code: Exit) -> None:
    assert findings(*lines).code is code


def test_a_trace_that_the_model_does_not_write_is_a_finding() -> None:
    divergence = Divergence("mirror", "summary", "rule", "this", "that")
    assert findings("ok 1 a.a", "ok 2 a.b", divergences=(divergence,)).code is Exit.DIVERGENCE


def test_what_the_program_is_told() -> None:
    assert parameters((), Mode.PARALLEL, BEST, None) == ""
    choices = choose("visibility=dsb,zero_ahead=8")
    told = parameters(
        ("full", "leaf.4k"), Mode.GDB, choices, injection_for("abort,append=3", choices, 1)
    )
    assert told == (
        "tests=full,leaf.4k stops=yes zero_ahead=8 visibility=dsb inject=abort:append=3:"
        f"times=1:vmid={INJECT_VMID}:report=fsc:dirty=no:late=0"
    )


def test_an_injection_at_reset_has_no_vmid() -> None:
    assert str(injection_for("unknown", BEST, 7)) == "unknown,reset=1,times=0,seed=7"


@pytest.mark.parametrize("key", ["pe=1", "vmid=3", "ipa=0x1000"])
def test_the_program_chooses_its_pages(key: str) -> None:
    with pytest.raises(UsageError, match="has no meaning"):
        injection_for(f"abort,{key}", BEST, 1)


@pytest.mark.parametrize(
    "words",
    [
        ["Full"],
        ["full fill"],
        ["--choices", "visibility=never"],
        ["--inject", "abord"],
        ["--inject", "abort,ipa=1"],
        ["--json", "/no/such/directory/report.json"],
    ],
)
def test_bad_input(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*_: object) -> Path:
        raise AssertionError("told too late")

    monkeypatch.setattr(images, "conformance", built)
    assert main(["conformance", *words]) == Exit.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("hdbss: ")


def test_the_json_report_says_that_it_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> Path:
        raise InfrastructureError("no compiler")

    monkeypatch.setattr(images, "conformance", fails)
    path = tmp_path / "report.json"
    assert main(["conformance", "--json", str(path)]) == Exit.INFRASTRUCTURE
    report = json.loads(path.read_text())
    assert (report["complete"], report["exit"]) == (False, Exit.INFRASTRUCTURE)
    assert "tests" not in report


def test_the_json_report() -> None:
    report = document(Request(smp=4), findings("ok 1 a.a", "not ok 2 a.b # x: required 1, seen 2"))
    assert (report["complete"], report["exit"], report["smp"]) == (True, Exit.DIVERGENCE, 4)
    assert json.loads(json.dumps(report))["tests"][1] == {
        "number": 2,
        "name": "a.b",
        "outcome": "fail",
        "reason": "x: required 1, seen 2",
    }


def test_a_name_that_selects_nothing() -> None:
    report = findings("ok 1 a.a", "ok 2 b.b").report
    conformance._require_tests(("a", "b.b"), report)
    with pytest.raises(UsageError, match="no test 'c'"):
        conformance._require_tests(("a", "c"), report)


def test_commas_on_qemus_command_line(tmp_path: Path) -> None:
    machine = BareMachine(tmp_path / "a.elf", "tests=a,b", tmp_path / "p,q.so", ("x=1",))
    argv = machine.argv(("qemu",), RunFiles(tmp_path))
    assert argv[-3].endswith("string=tests=a,,b")
    assert "/p,,q.so,ram=" in argv[-1] and argv[-1].endswith(",x=1")
