# SPDX-License-Identifier: GPL-2.0-or-later
"""The conformance program passes in both interceptors, and fails on PEs that are wrong."""

from collections import Counter
from pathlib import Path

import pytest

from qemu_model.conformance import Findings, Request, execute
from qemu_model.ktap import Outcome
from qemu_model.machine.cache import Cache, default_root
from qemu_model.machine.command import Mode, RunFiles
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.qemu import find_any_qemu
from qemu_model.report.result import Exit
from qemu_model.trace import Kind, read_trace
from tests.plugin.conftest import Bench

LEAST = 99
"""Tests that there are."""
KNOWN: set[str] = set()
"""Tests that fail on QEMU's PE for a reason that the README tells."""


def run(
    bench: Bench, directory: Path, request: Request, *, plugin: bool = True, told: str | None = None
) -> Findings:
    """Run the program of this tree with the plugin of this tree."""
    directory.mkdir(exist_ok=True)
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


@pytest.mark.parametrize("mode", [Mode.PARALLEL, Mode.DETERMINISTIC], ids=str)
def test_the_plugin_conforms(bench: Bench, tmp_path: Path, mode: Mode) -> None:
    findings = run(bench, tmp_path, Request(mode=mode))
    conforms(findings)
    assert len(findings.report.tests) >= LEAST
    assert findings.report.count(Outcome.SKIP) == 0
    kinds = Counter(record[1] for record in read_trace(RunFiles(tmp_path).trace))
    assert kinds[Kind.ANOMALY] == 0
    assert kinds[Kind.APPEND] > 512 * 1023


def test_gdb_mode_conforms(bench: Bench, tmp_path: Path) -> None:
    """What a stop for each entry makes too slow is skipped, and what QEMU 7.2 cannot."""
    findings = run(bench, tmp_path, Request(mode=Mode.GDB))
    conforms(findings, KNOWN | {"walks.read_only_tables_level"})
    skipped = [test for test in findings.report.tests if test.outcome is Outcome.SKIP]
    assert {test.name for test in skipped if "debugger" in test.reason} == {
        f"sizes.every_slot.sz{sz}" for sz in range(1, 10)
    }
    assert all(
        test.name.startswith("leaf.16k.lpa2") for test in skipped if "debugger" not in test.reason
    )


def test_one_pe_is_enough_for_most(bench: Bench, tmp_path: Path) -> None:
    findings = run(bench, tmp_path, Request(smp=1, names=("reset", "append")))
    conforms(findings)
    assert [test.name for test in findings.report.tests if test.outcome is Outcome.SKIP] == [
        "reset.cpu_off"
    ]


def test_without_the_plugin_it_fails(bench: Bench, tmp_path: Path) -> None:
    findings = run(bench, tmp_path, Request(), plugin=False)
    assert findings.report.complete
    assert findings.code is Exit.DIVERGENCE
    passed = [test.name for test in findings.report.tests if test.outcome is Outcome.PASS]
    assert passed == ["vtcr.reads_as_written", "vtcr.interrupted"]
