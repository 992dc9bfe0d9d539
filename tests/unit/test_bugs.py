# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of seeded bugs, and the hunt for them on machines that are none."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from qemu_model import bugs, cli, hunt, session
from qemu_model.bugs import BUGS, NONE, Attempt, Bug
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.judge import CHECKERS
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.hunt import Hunt, control, exit_code
from qemu_model.machine import images
from qemu_model.machine.command import Mode
from qemu_model.machine.progress import Progress, SilentProgress
from qemu_model.report import bugs as report
from qemu_model.report.result import Exit, Result
from qemu_model.runner import Bench
from qemu_model.scenarios.catalogue import SCENARIOS
from qemu_model.scenarios.scenario import Scenario
from tests.unit.fake_run import fake_bench

PATCHES = images.ROOT / "guest_images" / "kernel" / "bugs"
LATER = Bug("later", "is found late", (Attempt("bitmap.stride", "lost"),))
TWICE = Bug("twice", "has two", (Attempt("off.pending", "flushed"), Attempt("smp.move", "lost")))


# --- the table ----------------------------------------------------------------


def test_the_table_is_that_of_the_kernel() -> None:
    added = "\n".join(
        line[1:]
        for patch in sorted(PATCHES.glob("*.patch"))
        for line in patch.read_text().splitlines()
        if line.startswith("+")
    )
    names = dict(re.findall(r'\[(HDBSS_BUG_\w+)\]\s*= "([a-z-]+)"', added))
    assert sorted(names.values()) == sorted({bug.name for bug in BUGS} | {NONE})
    for constant in names:
        used = re.findall(rf"\bhdbss_bug\({constant}\)", added)
        assert used or constant == "HDBSS_BUG_NONE", f"{constant} makes nothing wrong"


def test_the_patch_is_numbered_and_signed() -> None:
    (patch,) = PATCHES.glob("*.patch")
    assert patch.name.startswith("0001-")
    text = patch.read_text()
    assert re.search(r"^Signed-off-by: HDBSS bench <hdbss@localhost>$", text, re.MULTILINE)
    assert re.search(r"^Subject: \[PATCH 1/1\]", text, re.MULTILINE)


def test_every_attempt_can_be_made() -> None:
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    checkers = {name for name, _ in CHECKERS}
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    for bug in BUGS:
        assert bug.attempts
        for attempt in bug.attempts:
            holds = scenarios[attempt.scenario].holds
            assert attempt.checker in checkers
            assert (attempt.mode is Mode.GDB) or not holds


def test_a_choice_of_bugs() -> None:
    assert bugs.select([]) == BUGS
    assert [bug.name for bug in bugs.select(["no-flush-*"])] == [
        "no-flush-at-put",
        "no-flush-on-request",
    ]
    with pytest.raises(UsageError, match="no seeded bug matches 'no-such'"):
        bugs.select(["last-entry", "no-such"])
    assert bugs.require(NONE) == NONE and bugs.require("last-entry") == "last-entry"
    with pytest.raises(UsageError, match="no seeded bug is called 'last'"):
        bugs.require("last")


# --- the hunt -----------------------------------------------------------------


@dataclass
class Machines:
    """Takes the place of ``run_scenario``: what each scenario finds with each bug."""

    tmp_path: Path
    finds: dict[tuple[str, str], tuple[str, ...]]
    """Bug and scenario -> the checkers that fire."""
    error: str | None = None
    """How the others end."""
    bug: bool = False
    ran: Callable[[str, str, Mode], None] = lambda bug, scenario, mode: None

    def prepare(self, name: str, attempt: Attempt) -> Bench:
        return replace(fake_bench(self.tmp_path, command=f" --bug {name}"), mode=attempt.mode)

    def session(self, choice: session.Choice, progress: Progress) -> Bench:
        assert choice.bug is not None
        return self.prepare(choice.bug, Attempt("", "", choice.mode))

    def run(self, bench: Bench, scenario: Scenario, progress: Progress) -> Result:
        bug = bench.command.removeprefix(" --bug ")
        self.ran(bug, scenario.name, bench.mode)
        result = Result(scenario.name, str(bench.mode), 1, 1.5, bench.repeat(scenario.name))
        checkers = self.finds.get((bug, scenario.name))
        if checkers is None:
            return replace(result, error=self.error, bug=self.bug)
        directory = self.tmp_path / f"{bug}.{scenario.name}"
        directory.mkdir(exist_ok=True)
        found = tuple(Divergence(name, f"{name} is wrong", "R", "x", "y") for name in checkers)
        return replace(result, divergences=found, directory=str(directory))


Setup = Callable[..., Machines]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    def made(finds: dict[tuple[str, str], tuple[str, ...]], **more: object) -> Machines:
        machines = Machines(tmp_path, finds, **more)  # type: ignore[arg-type]
        monkeypatch.setattr(hunt, "run_scenario", machines.run)
        monkeypatch.setattr(session, "prepare", machines.session)
        return machines

    return made


def look(machines: Machines, *chosen: Bug, jobs: int = 1) -> list[Hunt]:
    return hunt.hunt_all(chosen, machines.prepare, jobs, SilentProgress(), lambda hunt: None)


def test_the_first_attempt_that_finds_it_is_the_last_run(setup: Setup, tmp_path: Path) -> None:
    (result,) = look(setup({("twice", "off.pending"): ("lost", "flushed")}), TWICE)
    assert [run.scenario for run in result.runs] == ["off.pending"]
    assert result.found is not None and result.finding is not None
    # By the checker that names the cause, although another one comes first.
    assert (result.finding.checker, result.found.command) == (
        "flushed", "hdbss run off.pending --mode parallel --seed 1 --bug twice",
    )  # fmt: skip
    # The run can be had again, so nothing of it is kept.
    assert result.found.directory == "" and not (tmp_path / "twice.off.pending").exists()
    assert exit_code([result], []) == Exit.AGREE


def test_a_finding_of_another_checker_counts(setup: Setup) -> None:
    (result,) = look(setup({("twice", "off.pending"): ("uapi", "reached")}), TWICE)
    assert result.finding is not None and result.finding.checker == "uapi"


def test_the_next_attempt_is_made_then_the_rest_of_the_catalogue(setup: Setup) -> None:
    (result,) = look(setup({("twice", "smp.move"): ("lost",)}), TWICE)
    assert [run.scenario for run in result.runs] == ["off.pending", "smp.move"]
    (result,) = look(setup({("later", "teardown.off"): ("kernel_log",)}), LATER)
    tried = [run.scenario for run in result.runs]
    assert tried[0] == "bitmap.stride" and tried[-1] == "teardown.off"
    assert len(tried) == len(set(tried)) and not any(name.startswith("race.") for name in tried)
    assert result.finding is not None and result.finding.checker == "kernel_log"


def test_a_bug_in_gdb_mode_is_looked_for_there(setup: Setup) -> None:
    seen: list[tuple[str, str, Mode]] = []
    machines = setup(
        {("held", "race.off-while-running"): ("lost",)}, ran=lambda *run: seen.append(run)
    )
    held = Bug("held", "needs holds", (Attempt("race.off-while-running", "lost", Mode.GDB),))
    (result,) = look(machines, held)
    assert seen == [("held", "race.off-while-running", Mode.GDB)]
    assert result.found is not None and result.found.mode == "gdb"


@pytest.mark.parametrize("error", [None, "time-out: the agent said nothing for 180 s"])
def test_a_bug_that_nothing_finds(setup: Setup, error: str | None) -> None:
    machines = setup({("twice", "off.pending"): ("lost",)}, error=error)
    hunts = look(machines, TWICE, LATER)
    assert [h.found is not None for h in hunts] == [True, False]
    assert len(hunts[1].runs) == sum(not scenario.holds for scenario in SCENARIOS)
    assert exit_code(hunts, []) == Exit.DIVERGENCE
    assert "NOTHING" in report.table(hunts) and "is found late" in report.table(hunts)
    assert report.score(hunts, []).startswith("1 of 2 bugs found")
    assert "later: NOT FOUND" in report.line(hunts[1])


def test_a_bug_of_ours_ends_the_hunt(setup: Setup) -> None:
    hunts = look(setup({}, error="Traceback", bug=True), LATER)
    assert len(hunts[0].runs) == 1 and exit_code(hunts, []) == Exit.BUG


def test_several_at_a_time_come_in_their_order(setup: Setup) -> None:
    machines = setup({("twice", "off.pending"): ("lost",), ("later", "bitmap.stride"): ("lost",)})
    hunts = look(machines, TWICE, LATER, jobs=2)
    assert [h.bug.name for h in hunts] == ["twice", "later"]
    assert exit_code(hunts, []) == Exit.AGREE


@pytest.mark.parametrize(
    ("finds", "error", "code", "score"),
    [
        ({}, None, Exit.AGREE, "2 of the 2"),
        ({(NONE, "off.pending"): ("lost",)}, None, Exit.DIVERGENCE, "1 of the 2"),
        ({}, "no QEMU", Exit.INFRASTRUCTURE, "0 of the 2"),
    ],
)
def test_what_found_a_bug_has_to_agree_without_one(
    setup: Setup,
    finds: dict[tuple[str, str], tuple[str, ...]],
    error: str | None,
    code: Exit,
    score: str,
) -> None:
    found = {("twice", "off.pending"): ("lost",), ("later", "bitmap.stride"): ("lost",)}
    machines = setup(found | finds, error=error)
    hunts = look(machines, TWICE, LATER)
    ran: list[Result] = []
    controls = control(hunts, machines.prepare, 2, SilentProgress(), ran.append)
    assert [result.scenario for result in controls] == ["bitmap.stride", "off.pending"]
    assert len(ran) == 2 and exit_code(hunts, controls) == code
    assert score in report.score(hunts, controls)


# --- the command --------------------------------------------------------------


def everything() -> dict[tuple[str, str], tuple[str, ...]]:
    return {(bug.name, a.scenario): (a.checker,) for bug in BUGS for a in bug.attempts}


def test_the_command(setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup(everything())
    path = tmp_path / "report.json"
    assert cli.main(["bugs", "--jobs", "2", "--json", str(path)]) == Exit.AGREE
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith(f"{len(BUGS)} of {len(BUGS)} bugs found")
    written = json.loads(path.read_text())
    assert (written["version"], written["complete"], written["exit"]) == (1, True, 0)
    assert [one["name"] for one in written["bugs"]] == [bug.name for bug in BUGS]
    assert all(one["found"] and one["command"].startswith("hdbss run") for one in written["bugs"])
    assert all(one["verdict"] == "agree" for one in written["control"])


def test_a_bug_that_is_not_found_is_exit_code_1(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    setup({})
    assert cli.main(["bugs", "last-entry"]) == Exit.DIVERGENCE
    assert "0 of 1 bugs found" in capsys.readouterr().out


def test_an_error_on_the_way_is_shown(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    setup({}, error="kernel panic: Oops")
    assert cli.main(["bugs", "last-entry"]) == Exit.DIVERGENCE
    assert "kernel panic: Oops" in capsys.readouterr().out


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bugs", "--list", "no-flush-*"]) == Exit.AGREE
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("words", [["bugs", "no-such"], ["run", "atomics", "--bug", "no-such"]])
def test_a_name_that_is_not_known(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cli.main(words) == Exit.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert "no-such" in line and "hdbss bugs --list" in line


def test_what_cannot_be_built_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object) -> Bench:
        raise InfrastructureError("no QEMU")

    monkeypatch.setattr(session, "prepare", broken)
    path = tmp_path / "report.json"
    assert cli.main(["bugs", "--json", str(path)]) == Exit.INFRASTRUCTURE
    assert "no QEMU" in capsys.readouterr().err
    assert json.loads(path.read_text())["complete"] is False
