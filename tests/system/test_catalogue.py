# SPDX-License-Identifier: GPL-2.0-or-later
"""Every scenario agrees on our own kernel, in every mode; the same seed, the same trace."""

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.checkers.equivalence import compare
from qemu_model.machine.command import Mode
from qemu_model.machine.progress import SilentProgress
from qemu_model.model.choices import WORST, choose
from qemu_model.model.injection import parse
from qemu_model.report.text import block
from qemu_model.run import load
from qemu_model.runner import Bench, run_scenario
from qemu_model.scenarios.catalogue import SCENARIOS, select
from qemu_model.scenarios.scenario import Scenario


@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in SCENARIOS if not scenario.holds],
    ids=lambda scenario: scenario.name,
)
def test_a_correct_kernel_agrees_and_does_the_same_in_both_modes(
    prepared: Bench, scenario: Scenario, tmp_path: Path
) -> None:
    runs = []
    for mode in (Mode.PARALLEL, Mode.DETERMINISTIC):
        bench = replace(prepared, mode=mode, keep=tmp_path)
        result = run_scenario(bench, scenario, SilentProgress())
        assert result.verdict == "agree", block(result)
        unchecked = {"flushed", "srcu", "buffer"} & {*result.unchecked}
        assert not unchecked or not scenario.needs.feature
        runs.append(load(Path(result.directory)))
    assert compare(*runs).difference is None


ALONE = (*(f"{name}={value}" for name, value in WORST.words()), "lost_cas_keeps_entry=no")
"""Every choice that is not the default one, by itself."""
DAILY = ("bitmap.random", "buffer.full", "flush.request", "off.pending")
"""Scenarios that every test run gives the worst hardware; the nightly one all of them."""


@pytest.mark.parametrize(
    ("choices", "scenario"),
    [
        pytest.param(
            choices,
            scenario,
            id=f"{choices}-{scenario.name}",
            marks=() if choices == "worst" and scenario.name in DAILY else pytest.mark.nightly,
        )
        for choices in ("worst", *ALONE)
        for scenario in SCENARIOS
        if not scenario.holds
    ],
)
def test_a_correct_kernel_agrees_whatever_the_hardware_chooses(
    prepared: Bench, scenario: Scenario, choices: str, tmp_path: Path
) -> None:
    bench = replace(prepared, choices=choose(choices, prepared.seed), keep=tmp_path)
    result = run_scenario(bench, scenario, SilentProgress())
    assert result.verdict == "agree", block(result)


RACES = [scenario for scenario in SCENARIOS if scenario.holds]


@pytest.mark.parametrize("scenario", RACES, ids=lambda scenario: scenario.name)
def test_a_correct_kernel_loses_no_race(
    gdb_bench: Bench, scenario: Scenario, tmp_path: Path
) -> None:
    result = run_scenario(replace(gdb_bench, keep=tmp_path), scenario, SilentProgress())
    assert result.verdict == "agree", block(result)
    steps = (Path(result.directory) / "holds.txt").read_text().splitlines()
    assert len(steps) == len(scenario.holds)


@pytest.mark.nightly
@pytest.mark.parametrize("turn", range(20))
@pytest.mark.parametrize("scenario", RACES, ids=lambda scenario: scenario.name)
def test_a_race_has_one_outcome(
    gdb_bench: Bench, scenario: Scenario, turn: int, tmp_path: Path
) -> None:
    bench = replace(gdb_bench, seed=turn, keep=tmp_path)
    result = run_scenario(bench, scenario, SilentProgress())
    assert result.verdict == "agree", block(result)


def test_what_needs_holds_says_so(prepared: Bench) -> None:
    for scenario in RACES:
        result = run_scenario(prepared, scenario, SilentProgress())
        assert result.skipped is not None and "--mode gdb" in result.skipped


def test_the_same_seed_gives_the_same_bytes(prepared: Bench, tmp_path: Path) -> None:
    (scenario,) = select(["smp.two-vcpus"])
    seen = set()
    for turn in ("first", "second"):
        bench = replace(prepared, mode=Mode.DETERMINISTIC, keep=tmp_path / turn)
        result = run_scenario(bench, scenario, SilentProgress())
        assert result.verdict == "agree", block(result)
        directory = Path(result.directory)
        names = ("trace.bin", "agent.log", "console.log")
        seen.add(tuple((directory / name).read_bytes() for name in names))
    assert len(seen) == 1


def test_a_fault_that_the_user_injects_keeps_nobody_waiting(
    prepared: Bench, tmp_path: Path
) -> None:
    """A vCPU that has got its error stores nothing more, while the other one goes on."""
    (scenario,) = select(["migrate.precopy"])
    injected = (parse("abort,append=100,report=fsc,dirty=yes"),)
    bench = replace(prepared, injections=injected, keep=tmp_path)
    result = run_scenario(bench, scenario, SilentProgress())
    assert result.verdict == "agree", block(result)
    log = (Path(result.directory) / "agent.log").read_text()
    assert "errname=EFAULT" in log
    assert "errname=ECANCELED error=payload-failed" in log and "ETIMEDOUT" not in log
