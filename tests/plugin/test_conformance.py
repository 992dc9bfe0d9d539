# SPDX-License-Identifier: GPL-2.0-or-later
"""The conformance program passes in both interceptors, and fails on PEs that are wrong."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model import conformance
from qemu_model.cli import main
from qemu_model.conformance import Findings, Request, execute
from qemu_model.errors import InfrastructureError
from qemu_model.ktap import Outcome
from qemu_model.machine.cache import Cache, default_root
from qemu_model.machine.command import Mode, RunFiles
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.qemu import find_any_qemu
from qemu_model.report.result import Exit
from qemu_model.trace import Kind, read_trace
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.sites import CONFORMANCE, Role, find_sites
from tests.plugin.conftest import Bench

LEAST = 140
"""Tests that there are."""
KNOWN = {"at.s12e1w", "registers.nested"}
"""Tests that fail on the plugin's PE, for reasons that the README tells."""
OLD_QEMU = {"at.stage1_af", "at.stage1_af_full", "walks.read_only_tables_level"}
"""Those that fail on QEMU 7.2 in addition, whose own doing they are about."""
NOTHING_INJECTED = {"inject.appends", "inject.refusals", "inject.index_at_entry"}
CPU_OFF = ["reset.cpu_off", "reset.cpu_off.psci_0_1"]
CHANGEABLE = ("append", "full", "reset", "smp", "two", "choices", "inject")
"""Groups in which choices and injections can show."""


def run(
    bench: Bench, directory: Path, request: Request, *, plugin: bool = True, told: str | None = None
) -> Findings:
    """Run the program of this tree with the plugin of this tree."""
    directory.mkdir(parents=True, exist_ok=True)
    qemu = bench.qemu
    if request.mode is Mode.GDB:
        qemu = find_any_qemu(Cache(default_root()), SilentProgress())
    return execute(
        request,
        qemu,
        bench.conformance,
        bench.plugin if plugin else None,
        directory,
        SilentProgress(),
        told,
    )


def conforms(findings: Findings, known: set[str] = KNOWN) -> None:
    """Nothing failed, was skipped, or differs from the reference model."""
    assert findings.report.complete
    assert [test for test in findings.report.tests if test.outcome is Outcome.FAIL] == []
    assert {t.name for t in findings.report.tests if t.outcome is Outcome.XFAIL} <= known
    assert findings.divergences == ()
    assert findings.code is Exit.AGREE


def skipped(findings: Findings, but: str = "debugger") -> set[str]:
    """The tests that were skipped, for a reason without this word."""
    return {
        test.name
        for test in findings.report.tests
        if test.outcome is Outcome.SKIP and but not in test.reason
    }


@pytest.mark.parametrize("mode", [Mode.PARALLEL, Mode.DETERMINISTIC], ids=str)
def test_the_plugin_conforms(bench: Bench, tmp_path: Path, mode: Mode) -> None:
    findings = run(bench, tmp_path, Request(mode=mode))
    conforms(findings)
    assert len(findings.report.tests) >= LEAST
    assert skipped(findings) == NOTHING_INJECTED | {"choices.visibility_late"}
    kinds = Counter(record[1] for record in read_trace(RunFiles(tmp_path).trace))
    assert kinds[Kind.ANOMALY] == 3  # the buffers outside RAM of choices.external_abort
    assert kinds[Kind.APPEND] > 512 * 1023


def test_gdb_mode_conforms(bench: Bench, tmp_path: Path) -> None:
    """What a stop for each entry makes too slow is skipped, and what QEMU 7.2 cannot."""
    findings = run(bench, tmp_path, Request(mode=Mode.GDB))
    conforms(findings, KNOWN | OLD_QEMU)
    slow = skipped(findings, but="\n") - skipped(findings)
    assert slow == {f"sizes.every_slot.sz{sz}" for sz in range(1, 10)}
    others = skipped(findings) - NOTHING_INJECTED - {"choices.visibility_late", "registers.nested"}
    assert all(name.startswith("leaf.16k.lpa2") for name in others)


CHOICES = (
    "worst",
    "visibility=dsb",
    "zero_ahead=8",
    "zero_ahead=512",
    "external_abort=precise",
    "external_abort=precise,dirty_after_external_abort=yes",
    "dirty_after_external_abort=yes",
    "fsc_delay=3",
    "fsc_delay=100,visibility=dsb",
    "af_with_refusal=yes",
    "caching=lazy",
)
INJECTIONS = {
    "abort,append=5,times=3": "appends",
    "abort,report=precise,dirty=yes,append=2": "appends",
    "abort,dirty=yes": "appends",
    "abort,late=3": "appends",
    "abort,append=4,times=0": "appends",
    "gpf": "appends",
    "gpf,report=precise,times=2": "appends",
    "cas-lost,append=3,times=5": "appends",
    "fill,append=4,times=3": "appends",
    "s1ptw,refusal=4,times=0": "refusals",
    "fetch,times=4,refusal=2": "refusals",
    "index=last,entry=4,times=2": "index_at_entry",
    "index=full": "index_at_entry",
    "index=max,entry=3": "index_at_entry",
}
IN_GDB_MODE = tuple(INJECTIONS)[1::3]


@pytest.mark.parametrize("choices", [*CHOICES, "lost_cas_keeps_entry=no", "gpf=precise"])
def test_every_choice_conforms(bench: Bench, tmp_path: Path, choices: str) -> None:
    conforms(run(bench, tmp_path, Request(choices=choices, names=CHANGEABLE)))


@pytest.mark.parametrize("choices", ["worst", "fsc_delay=3", "visibility=dsb"])
def test_every_choice_conforms_in_gdb_mode(bench: Bench, tmp_path: Path, choices: str) -> None:
    names = ("full.access_flag", "choices", "two")
    conforms(run(bench, tmp_path, Request(mode=Mode.GDB, choices=choices, names=names)))


@pytest.mark.parametrize(
    ("inject", "mode"),
    [(inject, Mode.PARALLEL) for inject in INJECTIONS] + [(i, Mode.GDB) for i in IN_GDB_MODE],
)
def test_every_injection_conforms(bench: Bench, tmp_path: Path, inject: str, mode: Mode) -> None:
    findings = run(bench, tmp_path, Request(mode=mode, inject=inject, names=("inject",)))
    conforms(findings)
    passed = {test.name for test in findings.report.tests if test.outcome is Outcome.PASS}
    assert passed == {f"inject.{INJECTIONS[inject]}"}


@pytest.mark.parametrize("choices", ["", "lost_cas_keeps_entry=no", "worst"])
def test_injections_and_choices_together(bench: Bench, tmp_path: Path, choices: str) -> None:
    for inject in ("abort,append=2", "gpf", "cas-lost,times=3"):
        request = Request(choices=choices, inject=inject, names=("inject",))
        conforms(run(bench, tmp_path / inject, request))


@pytest.mark.parametrize("mode", [Mode.PARALLEL, Mode.GDB], ids=str)
def test_unknown_registers(bench: Bench, tmp_path: Path, mode: Mode) -> None:
    findings = run(bench, tmp_path, Request(mode=mode, inject="unknown", names=("reset", "full")))
    conforms(findings)


@pytest.mark.parametrize("choices", CHOICES)
def test_a_choice_that_it_was_not_told_of(bench: Bench, tmp_path: Path, choices: str) -> None:
    """The twin: a PE that does not do what it says."""
    request = Request(choices=choices)
    findings = run(bench, tmp_path, request, told="tests=full.access_flag,choices")
    assert findings.report.complete and findings.report.failed
    assert findings.code is Exit.DIVERGENCE


@pytest.mark.parametrize("inject", [*INJECTIONS, "unknown"])
def test_an_injection_that_it_was_not_told_of(bench: Bench, tmp_path: Path, inject: str) -> None:
    """The twin: a PE that is wrong."""
    findings = run(bench, tmp_path, Request(inject=inject), told="tests=inject,reset")
    assert findings.report.complete
    wrong = CPU_OFF if inject == "unknown" else ["inject.nothing"]
    assert [test.name for test in findings.report.failed] == wrong


def test_an_injection_that_never_comes(bench: Bench, tmp_path: Path) -> None:
    told = "tests=inject inject=abort:append=2:times=1:report=fsc:dirty=no:late=0"
    findings = run(bench, tmp_path, Request(), told=told)
    assert [test.name for test in findings.report.failed] == ["inject.appends"]


def test_one_pe_is_enough_for_most(bench: Bench, tmp_path: Path) -> None:
    findings = run(bench, tmp_path, Request(smp=1, names=("reset", "append")))
    conforms(findings)
    assert [test.name for test in findings.report.tests if test.outcome is Outcome.SKIP] == CPU_OFF


def test_without_the_plugin_it_fails(bench: Bench, tmp_path: Path) -> None:
    findings = run(bench, tmp_path, Request(), plugin=False)
    assert findings.report.complete
    assert findings.code is Exit.DIVERGENCE
    passed = [test.name for test in findings.report.tests if test.outcome is Outcome.PASS]
    assert passed == ["vtcr.reads_as_written", "vtcr.interrupted"]


def test_a_program_without_an_end(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(conformance._LIMITS, Mode.PARALLEL, 3.0)
    program = bench.programs / "forever.elf"
    findings = execute(
        Request(), bench.qemu, program, bench.plugin, tmp_path, SilentProgress(), told="x=x"
    )
    assert (findings.report.planned, findings.report.tests) == (1, ())
    assert findings.code is Exit.INFRASTRUCTURE
    assert read_trace(RunFiles(tmp_path).trace).end == 0  # the plugin has closed it


def test_a_qemu_that_fails(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"QEMU ended with status 1: .*nothing\.elf"):
        execute(
            Request(),
            bench.qemu,
            tmp_path / "nothing.elf",
            bench.plugin,
            tmp_path,
            SilentProgress(),
        )


def test_the_guests_code_is_no_place_to_stop_at(bench: Bench) -> None:
    """At EL1 the same instruction is not the PE's at EL2."""
    elf = Vmlinux(bench.conformance)
    sites = find_sites(elf, CONFORMANCE)
    assert len(sites.of(Role.ERET)) == 1
    assert len(sites.of(Role.VECTOR)) == 8
    guest = {elf.address(f"el1_{access}_hdbssbr") for access in ("mrs", "msr")}
    assert not guest & sites.by_address.keys()
    assert guest <= find_sites(elf, replace(CONFORMANCE, elsewhere="none_")).by_address.keys()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    words = ["conformance", "full", "smp.same_page", "--json", str(report), "--keep", str(tmp_path)]
    assert main(words) == Exit.AGREE
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == ["KTAP version 1", "# parameters: tests=full,smp.same_page", "1..7"]
    assert printed[3] == "ok 1 full.fill"
    written = json.loads(report.read_text())
    assert (written["complete"], written["exit"]) == (True, Exit.AGREE)
    assert [test["name"] for test in written["tests"]][-1] == "smp.same_page"
    assert (tmp_path / "conformance.parallel" / "trace.bin").is_file()
    assert main(words) == Exit.USAGE  # the directory is in use
    assert main(["conformance", "full", "empty"]) == Exit.USAGE
