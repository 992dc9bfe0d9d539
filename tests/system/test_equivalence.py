# SPDX-License-Identifier: GPL-2.0-or-later
"""Small programs: what the plugin and gdb mode did is equivalent, and what is not is found.

The plugin's runs are made by a QEMU 11.1, gdb mode's by the QEMU of the distribution.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.checkers.equivalence import compare
from qemu_model.machine.command import Mode
from qemu_model.machine.progress import SilentProgress
from qemu_model.report.result import Exit
from qemu_model.report.text import block
from qemu_model.run import load
from qemu_model.runner import Bench, run_scenario
from qemu_model.scenarios.catalogue import SCENARIOS, select
from qemu_model.scenarios.scenario import Scenario
from qemu_model.trace import HEADER, RECORD, Kind, read_trace
from tests.system.conftest import hdbss

MODES = (Mode.PARALLEL, Mode.DETERMINISTIC)


def runs(bench: Bench, scenario: Scenario, directory: Path) -> list[Path]:
    """Run the small form of a scenario in both modes; returns where the runs are."""
    found = []
    for mode in MODES:
        one = replace(bench, mode=mode, small=True, keep=directory)
        result = run_scenario(one, scenario, SilentProgress())
        assert result.verdict == "agree", block(result)
        found.append(Path(result.directory))
    return found


# Holds are for gdb mode alone.
PLAIN = [scenario for scenario in SCENARIOS if not scenario.holds]
DAILY = (
    *("bitmap.stride", "buffer.full", "flush.put", "fault.abort-dirty", "huge.thp", "atomics"),
    "uapi.nvhe",
)
"""Scenarios that every test run compares through gdb; the nightly one takes them all."""


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(s, id=s.name, marks=() if s.name in DAILY else pytest.mark.nightly)
        for s in PLAIN
    ],
)
def test_what_two_interceptors_did_is_equivalent(
    prepared: Bench, gdb_bench: Bench, scenario: Scenario, tmp_path: Path
) -> None:
    bench = replace(prepared, mode=Mode.DETERMINISTIC, small=True, keep=tmp_path)
    plugin = run_scenario(bench, scenario, SilentProgress())
    assert plugin.verdict == "agree", block(plugin)
    through_gdb = run_scenario(replace(gdb_bench, keep=tmp_path), scenario, SilentProgress())
    if scenario.not_in_gdb:
        assert through_gdb.skipped == scenario.not_in_gdb
        return
    assert through_gdb.verdict == "agree", block(through_gdb)
    first, second = load(Path(plugin.directory)), load(Path(through_gdb.directory))
    assert compare(first, second).difference is None


def test_one_wrong_entry_of_a_real_run_is_found(prepared: Bench, tmp_path: Path) -> None:
    (scenario,) = select(["smp.two-vcpus"])
    first, second = runs(prepared, scenario, tmp_path)
    assert hdbss("check", "--against", first, second).returncode == Exit.AGREE
    path = second / "trace.bin"
    data = bytearray(path.read_bytes())
    wrong = next(record for record in reversed([*read_trace(path)]) if record[1] == Kind.APPEND)
    values = [*wrong]
    values[4] ^= 1 << 24
    values[5] ^= 1 << 24
    RECORD.pack_into(data, HEADER.size + (wrong[0] - 1) * RECORD.size, *values)
    path.write_bytes(data)
    done = hdbss("check", "--against", first, second)
    assert done.returncode == Exit.DIVERGENCE, done.stderr
    assert "[entries]" in done.stdout and f"#{wrong[0]} " in done.stdout
