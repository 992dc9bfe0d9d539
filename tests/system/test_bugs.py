# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels with one bug each: all must be found, each by the checker that names its cause."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model import session
from qemu_model.bugs import BUGS, NONE
from qemu_model.checkers.finding import Divergence
from qemu_model.machine.command import Mode
from qemu_model.machine.progress import SilentProgress
from qemu_model.report.result import Exit, Result
from qemu_model.report.text import block
from qemu_model.runner import run_scenario
from qemu_model.scenarios.catalogue import select
from tests.system.conftest import hdbss, one_line


def test_every_bug_is_found_and_nothing_without_one(tmp_path: Path) -> None:
    """One command, as people run it; it also runs all its scenarios without a bug."""
    jobs = os.cpu_count() or 1
    done = hdbss("bugs", "--jobs", jobs, "--json", tmp_path / "bugs.json")
    assert done.returncode == Exit.AGREE, done.stdout + done.stderr
    assert f"{len(BUGS)} of {len(BUGS)} bugs found" in done.stdout
    report = json.loads((tmp_path / "bugs.json").read_text())
    assert report["complete"] is True
    expected = {
        bug.name: [(a.scenario, a.checker, str(a.mode), a.choices) for a in bug.attempts]
        for bug in BUGS
    }
    for one in report["bugs"]:
        found = one["scenario"], one["checker"], one["mode"], one["choices"]
        assert found in expected[one["name"]], f"{one['name']}: {found}: {one['finding']}"
    assert {result["verdict"] for result in report["control"]} == {"agree"}


def test_a_bug_that_cannot_show_is_not_found(tmp_path: Path) -> None:
    """No capability, no HDBSS: a scenario without it must not find a bug of it."""
    result = run("last-entry", "baseline.write-protect", tmp_path)
    assert result.verdict == "agree", block(result)


def test_the_kernel_finds_its_free_memory_spoilt(tmp_path: Path) -> None:
    """Entries go to a buffer that was freed: seen by us as it is done, by its poison later."""
    result = run("early-free", "off.writing", tmp_path)
    said = {(found.checker, found.summary) for found in result.divergences}
    assert any("just after an append" in text for checker, text in said if checker == "buffer")
    poison = "the kernel's log complains: pagealloc: memory corruption"
    assert ("kernel_log", poison) in said, block(result)


def test_the_reproduce_line_reproduces(tmp_path: Path) -> None:
    result = run("last-entry", "atomics", tmp_path)
    words = result.command.split()
    assert words[0] == "hdbss" and "--bug" in words
    again = hdbss(*words[1:])
    assert again.returncode == Exit.DIVERGENCE, again.stdout + again.stderr
    assert "hdbss.bug=last-entry" in again.stdout


def test_the_kernel_says_which_bug_it_has(tmp_path: Path) -> None:
    result = run(NONE, "baseline.write-protect", tmp_path)
    assert result.verdict == "agree", block(result)
    console = (Path(result.directory) / "console.log").read_text()
    assert "hdbss.bug: none" in console


def test_a_name_that_the_kernel_does_not_know_is_seen(tmp_path: Path) -> None:
    """Whatever our table says: a kernel must not run as a correct one by mistake."""
    bench = session.prepare(session.Choice(bug=NONE, keep=tmp_path), SilentProgress())
    kernel = replace(bench.kernel, cmdline=("hdbss.bug=first-entry",))
    (scenario,) = select(["baseline.write-protect"])
    result = run_scenario(replace(bench, kernel=kernel), scenario, SilentProgress())
    assert result.verdict == "DIVERGE", block(result)
    assert {divergence.checker for divergence in result.divergences} == {"kernel_log"}


def test_a_bug_that_nobody_has_seeded_is_refused() -> None:
    done = hdbss("bugs", "first-entry")
    assert done.returncode == Exit.USAGE
    assert "first-entry" in one_line(done)


ALSO: dict[str, tuple[tuple[str, str], ...]] = {
    "no-flush-at-put": (
        *(("flush.put", "lost"), ("smp.move", "lost"), ("bitmap.stride", "lost")),
        ("race.put-after-exit", "lost"),
    ),
    "no-drain-before-off": (("race.off-while-running", "lost"),),
    "early-free": (
        *(("off.pending", "flushed"), ("off.empty", "buffer")),
        ("race.off-while-running", "buffer"),
    ),
    "on-before-buffer": (("race.enable-window", "programming"),),
    "on-after-enomem": (("uapi.no-memory", "programming"),),
    "index-left-behind": (("fault.hotplug", "lost"),),
    "hdbssf-ignored": (("flush.fault", "liveness"), ("fault.full-early", "liveness")),
    "no-late-buffer": (("race.vcpu-create", "programming"),),
    "last-entry": (
        *(("bitmap.manual-protect", "lost"), ("bitmap.initially-set", "lost")),
        *(("smp.two-vcpus", "lost"), ("off.on-again", "lost"), ("slot.recreate", "flushed")),
        *(("migrate.precopy", "lost"), ("atomics", "lost"), ("slot.move", "lost")),
        *(("migrate.precopy", "flushed"), ("atomics", "flushed"), ("slot.move", "flushed")),
        *(("race.get-before-flush", "flushed"), ("race.slot-delete", "flushed")),
    ),
}
"""What finds a bug besides its attempts: what a scenario is for must not depend on another."""


def run(bug: str, name: str, directory: Path) -> Result:
    (scenario,) = select([name])
    mode = Mode.GDB if scenario.holds else Mode.PARALLEL
    bench = session.prepare(session.Choice(bug=bug, mode=mode, keep=directory), SilentProgress())
    return run_scenario(bench, scenario, SilentProgress())


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("bug", "scenario", "checker"),
    [(bug, *pair) for bug, pairs in ALSO.items() for pair in pairs],
)
def test_other_scenarios_find_it_too(bug: str, scenario: str, checker: str, tmp_path: Path) -> None:
    result = run(bug, scenario, tmp_path)
    assert result.verdict == "DIVERGE", block(result)
    assert checker in {divergence.checker for divergence in result.divergences}, block(result)
    if (bug, checker) == ("last-entry", "flushed"):
        for divergence in result.divergences:
            assert checker != divergence.checker or _names_the_last_entry(divergence)


def _names_the_last_entry(divergence: Divergence) -> bool:
    """Whether the flush that was found is one whose last entry is missing."""
    where = re.match(r"flush \d+ \(PE \d+, at hdbss_drain\+", divergence.summary)
    last = re.search(r"INDEX, which was (\d+), .* entry (\d+) of", divergence.required)
    return bool(where and last and int(last[1]) - 1 == int(last[2]))
