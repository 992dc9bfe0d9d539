# SPDX-License-Identifier: GPL-2.0-or-later
"""Holds that do not come to their end, on the real kernel."""

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.gdbstub.holding import Holding
from qemu_model.machine.progress import SilentProgress
from qemu_model.report.result import Result
from qemu_model.runner import Bench, run_scenario
from qemu_model.scenarios.holds import Await, Hold, Let, Release, Step
from qemu_model.scenarios.scenario import Scenario, Script

PAGES = 16


def _agent_sleeps(s: Script) -> None:
    s.vm(PAGES)
    s("log", 0, "on")
    s("snapshot", 0)
    s("pin", "agent", cpu=0)
    s("pin", vcpu=0, cpu=1)
    s.payload("start", "stride", 0, PAGES, loops=0)
    s("await", 0, page=PAGES - 1)
    s("sleep", ms=20_000)
    s("stop", 0)


def _run(bench: Bench, keep: Path, *holds: Step) -> Result:
    scenario = Scenario("holds", "a test", "nothing", _agent_sleeps, styles=("cap",), holds=holds)
    return run_scenario(replace(bench, keep=keep), scenario, SilentProgress())


def test_a_hold_without_its_release_says_where_everybody_stood(
    gdb_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = Let(0, reach="panic")
    # Only the step that cannot end is out of patience.
    monkeypatch.setattr(Holding, "overdue", lambda self: self.event == endless.event)
    result = _run(
        gdb_bench,
        tmp_path,
        Await("start"),
        Hold(0, at="hrtimer_nanosleep"),
        # CPU 1 stops last; then CPU 0 alone stops nowhere, and is interrupted.
        Let(1, reach="__guest_exit"),
        endless,
        Release(),
    )
    assert result.verdict == "error" and result.error is not None
    assert "step 4 of 5 did not end: CPU 0 runs alone until it reaches panic" in result.error
    assert "CPU 1 stands at __guest_exit" in result.error
