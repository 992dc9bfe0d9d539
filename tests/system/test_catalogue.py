# SPDX-License-Identifier: GPL-2.0-or-later
"""Every scenario agrees on our own kernel, in both modes; the same seed, the same trace."""

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.machine.command import Mode
from qemu_model.machine.progress import SilentProgress
from qemu_model.report.text import block
from qemu_model.runner import Bench, run_scenario
from qemu_model.scenarios.catalogue import SCENARIOS, select
from qemu_model.scenarios.scenario import Scenario


@pytest.mark.parametrize("mode", list(Mode), ids=str)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_correct_kernel_agrees(
    prepared: Bench, scenario: Scenario, mode: Mode, tmp_path: Path
) -> None:
    result = run_scenario(replace(prepared, mode=mode, keep=tmp_path), scenario, SilentProgress())
    assert result.verdict == "agree", block(result)
    assert "flushed" not in result.unchecked or not scenario.needs.feature


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
