# SPDX-License-Identifier: GPL-2.0-or-later
"""From a scenario to its result, and which run directories stay."""

import json
import os
import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model import runner
from qemu_model.cli import main
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine.command import Mode, compose
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.vm import Limits
from qemu_model.model.choices import Choices, Visibility
from qemu_model.model.injection import parse
from qemu_model.report.result import Exit, Result
from qemu_model.run import load
from qemu_model.rundir import run_directory
from qemu_model.runner import Bench, dry_run, run_scenario, run_scenarios
from qemu_model.scenarios.scenario import Needs, Scenario, Script, Uapi
from qemu_model.session import Choice
from tests.unit.checkers.factory import channel_bytes, make_trace, mark
from tests.unit.fake_run import SECONDS, FakeMachine, below, fake_bench
from tests.unit.machine.fake_machine import fake_qemu
from tests.unit.vmlinux.kernel_like import KERNEL, assemble

KASAN = "BUG: KASAN: use-after-free in kvm_arm_hdbss_flush\n"


def _write(script: Script) -> None:
    script("vm")
    script("klog")


def _slow(script: Script) -> None:
    time.sleep(0.5)
    _write(script)


def _twice(script: Script) -> None:
    _write(script)
    script.reaches("entries>=1")


NEEDS = Needs(cpus=1, memory=128)
SCENARIO = Scenario("by.hand", "a VM", "nothing", _write, NEEDS)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    fake = FakeMachine(events=[mark(3), mark(3, 1)])
    monkeypatch.setattr(runner, "run_machine", fake)
    return fake


def run(bench: Bench, scenario: Scenario = SCENARIO) -> Result:
    return run_scenario(bench, scenario, SilentProgress())


def run_all(bench: Bench, *scenarios: Scenario, jobs: int = 1) -> list[Result]:
    return run_scenarios(bench, scenarios, jobs, SilentProgress(), lambda result: None)


# --- results ------------------------------------------------------------------


def test_a_run_that_agrees(tmp_path: Path, machine: FakeMachine) -> None:
    result = run(fake_bench(tmp_path, seed=7))
    assert (result.verdict, result.scenario, result.mode, result.seed) == (
        "agree", "by.hand", "parallel", 7,
    )  # fmt: skip
    assert result.kernel == "fake kernel"
    assert result.command == "hdbss run by.hand --mode parallel --seed 7"
    assert result.figures["entries"] == 0 and [*result.unchecked] == ["flushed", "srcu", "buffer"]
    assert result.seconds > 0
    (spec,) = machine.specs
    assert (spec.smp, spec.memory, spec.seed, spec.trace) == (1, 128, 7, True)
    assert machine.programs == ["uapi cap=300\n# by.hand: a VM\nvm\nklog\n"]


def test_a_divergence_of_the_kernel(tmp_path: Path, machine: FakeMachine) -> None:
    machine.console = KASAN
    result = run(fake_bench(tmp_path))
    assert result.verdict == "DIVERGE" and result.error is None
    assert [divergence.checker for divergence in result.divergences] == ["kernel_log"]


def test_a_run_that_did_not_get_to_its_purpose(tmp_path: Path, machine: FakeMachine) -> None:
    result = run(fake_bench(tmp_path), replace(SCENARIO, write=_twice))
    assert [divergence.checker for divergence in result.divergences] == ["reached"]


def test_a_lost_machine_is_an_error_of_this_result_only(
    tmp_path: Path, machine: FakeMachine
) -> None:
    machine.lost = "Attempted to kill the idle task"
    result = run(fake_bench(tmp_path))
    assert result.verdict == "error" and result.divergences == ()
    assert result.error is not None and "kernel panic: Attempted" in result.error


def test_a_damaged_channel_is_an_error(tmp_path: Path, machine: FakeMachine) -> None:
    machine.cut_channel = True
    result = run(fake_bench(tmp_path))
    assert result.error is not None and "channel is damaged" in result.error


def test_a_file_missing_afterwards_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgets(*args: object, **kwargs: object) -> None:
        pass

    monkeypatch.setattr(runner, "run_machine", forgets)
    result = run(fake_bench(tmp_path))
    assert result.error is not None and "run.json" in result.error


@pytest.mark.parametrize("style", ["none", "auto"])
def test_a_scenario_that_means_nothing_here(
    tmp_path: Path, machine: FakeMachine, style: str
) -> None:
    bench = fake_bench(tmp_path, uapi=Uapi(style))
    result = run(bench, replace(SCENARIO, styles=("cap",)))
    assert result.verdict == "skipped" and f"--uapi {style}" in str(result.skipped)
    assert machine.specs == [] and below(tmp_path / "runs") == []
    assert run(bench).verdict == "agree"


def test_a_kernel_that_is_built_without_what_a_scenario_uses(
    tmp_path: Path, machine: FakeMachine
) -> None:
    bench = fake_bench(tmp_path)
    here = replace(bench.kernel, vmlinux=assemble(tmp_path, KERNEL))
    for kernel, symbol, verdict in (
        (here, "no_such", "skipped"),
        (here, "_text", "agree"),
        (replace(here, vmlinux=None), "_text", "skipped"),
    ):
        needs = replace(NEEDS, symbol=symbol, config="CONFIG_OF_THAT")
        result = run(replace(bench, kernel=kernel), replace(SCENARIO, needs=needs))
        assert result.verdict == verdict
        assert verdict == "agree" or "CONFIG_OF_THAT" in str(result.skipped)


def test_pes_without_the_feature(tmp_path: Path, machine: FakeMachine) -> None:
    result = run(fake_bench(tmp_path), replace(SCENARIO, needs=replace(NEEDS, feature=False)))
    assert machine.specs[0].plugin is None
    assert result.verdict == "agree" and "mirror" in result.unchecked


def test_the_machine_is_what_the_scenario_needs(tmp_path: Path, machine: FakeMachine) -> None:
    needs = Needs(cpus=4, memory=256, cmdline="a=1 b")
    run(replace(fake_bench(tmp_path), mode=Mode.DETERMINISTIC), replace(SCENARIO, needs=needs))
    (spec,) = machine.specs
    assert (spec.smp, spec.memory, spec.mode) == (4, 256, Mode.DETERMINISTIC)
    assert spec.cmdline == ("a=1", "b")


# --- directories --------------------------------------------------------------


def test_the_directory_of_a_run_that_agrees_goes(tmp_path: Path, machine: FakeMachine) -> None:
    result = run(fake_bench(tmp_path))
    assert machine.directories[0].parent == tmp_path / "runs"
    assert below(tmp_path / "runs") == [] and result.directory == ""


@pytest.mark.parametrize("how", ["diverge", "lost", "damaged"])
def test_the_directory_of_a_failed_run_stays(
    tmp_path: Path, machine: FakeMachine, how: str
) -> None:
    machine.console = KASAN if how == "diverge" else ""
    machine.lost = "panic" if how == "lost" else None
    machine.cut_channel = how == "damaged"
    result = run(fake_bench(tmp_path))
    (name,) = below(tmp_path / "runs")
    assert result.directory == str(tmp_path / "runs" / name)
    assert name.startswith("by.hand.parallel.")
    assert (tmp_path / "runs" / name).stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "runs" / name / "program.txt").exists()


def test_a_kept_run_can_be_read_back(tmp_path: Path, machine: FakeMachine) -> None:
    bench = fake_bench(tmp_path, keep=tmp_path / "keep", seed=9)
    result = run(bench)
    assert result.verdict == "agree"
    assert result.directory == str(tmp_path / "keep" / "by.hand.parallel")
    assert Path(result.directory).stat().st_mode & 0o777 == 0o700
    assert below(tmp_path / "runs") == []
    about = load(Path(result.directory)).about
    assert (about.scenario, about.seed, about.command) == ("by.hand", 9, result.command)
    assert (about.mode, about.kernel, about.seconds) == ("parallel", "fake kernel", SECONDS)
    assert about.feature and not about.shared_console
    record = json.loads((Path(result.directory) / "run.json").read_text())
    assert record["uapi"] == "cap:300"


def test_a_kept_run_replaces_an_older_one(tmp_path: Path, machine: FakeMachine) -> None:
    bench = fake_bench(tmp_path, keep=tmp_path / "keep")
    first = run(bench)
    (Path(first.directory) / "verdict.json").write_text("old")
    machine.console = KASAN
    second = run(bench)
    assert (second.directory, second.verdict) == (first.directory, "DIVERGE")
    assert not (Path(second.directory) / "verdict.json").exists()
    assert KASAN in load(Path(second.directory)).console


def test_both_modes_are_kept_side_by_side(tmp_path: Path, machine: FakeMachine) -> None:
    bench = fake_bench(tmp_path, keep=tmp_path / "keep")
    run(bench)
    run(replace(bench, mode=Mode.DETERMINISTIC))
    assert below(tmp_path / "keep") == ["by.hand.deterministic", "by.hand.parallel"]


def test_a_directory_that_is_no_run_is_never_removed(tmp_path: Path, machine: FakeMachine) -> None:
    theirs = tmp_path / "keep" / "by.hand.parallel"
    theirs.mkdir(parents=True)
    (theirs / "thesis.tex").write_text("years")
    with pytest.raises(UsageError, match="no run directory; choose another DIR"):
        run(fake_bench(tmp_path, keep=tmp_path / "keep"))
    assert (theirs / "thesis.tex").read_text() == "years" and machine.specs == []


def test_a_file_in_the_place_of_a_directory(tmp_path: Path, machine: FakeMachine) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "by.hand.parallel").write_text("mine")
    with pytest.raises(UsageError, match="no run directory"):
        run(fake_bench(tmp_path, keep=tmp_path / "keep"))
    assert (tmp_path / "keep" / "by.hand.parallel").read_text() == "mine"


def test_a_run_that_never_started_does_not_bar_the_next(
    tmp_path: Path, machine: FakeMachine
) -> None:
    """What a full disk leaves is an empty directory."""
    (tmp_path / "keep" / "by.hand.parallel").mkdir(parents=True)
    assert run(fake_bench(tmp_path, keep=tmp_path / "keep")).verdict == "agree"


def test_no_place_for_directories(tmp_path: Path, machine: FakeMachine) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(InfrastructureError, match="cannot make a run directory in"):
        run(fake_bench(tmp_path))
    (tmp_path / "keep").write_text("a file")
    with pytest.raises(InfrastructureError, match="cannot make a run directory in"):
        run(fake_bench(tmp_path, keep=tmp_path / "keep"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupted_run_is_cleaned_up(
    tmp_path: Path, machine: FakeMachine, error: BaseException
) -> None:
    machine.error = error
    with pytest.raises(type(error)):
        run(fake_bench(tmp_path))
    assert len(machine.directories) == 1 and below(tmp_path / "runs") == []


def test_a_bug_of_ours_keeps_the_run_and_stops_nobody(tmp_path: Path, machine: FakeMachine) -> None:
    machine.error = ZeroDivisionError("ours")
    result = run(fake_bench(tmp_path))
    assert result.verdict == "BUG" and "ZeroDivisionError: ours" in str(result.error)
    assert Path(result.directory).is_dir()


def test_an_interrupted_run_is_kept_where_the_user_said_so(
    tmp_path: Path, machine: FakeMachine
) -> None:
    machine.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(fake_bench(tmp_path, keep=tmp_path / "keep"))
    assert below(tmp_path / "keep" / "by.hand.parallel") == ["program.txt", "run.json"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_at_most_twenty_failed_runs_are_kept(
    tmp_path: Path, machine: FakeMachine, jobs: int
) -> None:
    runs = tmp_path / "runs"
    for number in range(25):
        old = runs / f"old.{number:02}"
        old.mkdir(parents=True)
        (old / "run.json").write_text("{}")
        os.utime(old, (1000 + number, 1000 + number))
    (runs / "note").write_text("not a directory")
    machine.console = KASAN
    results = run_all(fake_bench(tmp_path), SCENARIO, replace(SCENARIO, name="other"), jobs=jobs)
    # The newest stay: the two of this command, and 18 of the old ones.
    left = [name for name in below(runs) if name.startswith("old.")]
    assert left == [f"old.{number:02}" for number in range(7, 25)]
    assert len(below(runs)) == 20 + 1
    assert all(Path(result.directory).is_dir() for result in results)
    assert (runs / "note").exists()


def test_a_run_that_goes_on_is_not_forgotten(tmp_path: Path, machine: FakeMachine) -> None:
    """A person may stay at the prompt of `hdbss shell` for hours."""
    runs = tmp_path / "runs"
    with run_directory(None, runs, "shell", "run.json") as directory:
        for number in range(25):
            (runs / f"old.{number:02}").mkdir()
        for path in runs.iterdir():
            os.utime(path, (1.0, 1.0) if path == directory else (2.0, 2.0))
        run_all(fake_bench(tmp_path), SCENARIO)
        assert directory.is_dir()
    run_all(fake_bench(tmp_path), SCENARIO)
    assert not directory.exists()


# --- several ------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2, 8])
def test_results_come_in_the_order_of_the_catalogue(
    tmp_path: Path, machine: FakeMachine, jobs: int
) -> None:
    scenarios = [replace(SCENARIO, name=f"by.{name}") for name in ("late", "b", "a", "c")]
    scenarios[0] = replace(scenarios[0], write=_slow)
    ended: list[str] = []
    results = run_scenarios(
        fake_bench(tmp_path), scenarios, jobs, SilentProgress(), lambda r: ended.append(r.scenario)
    )
    names = ["by.late", "by.b", "by.a", "by.c"]
    assert [result.scenario for result in results] == names
    assert {result.verdict for result in results} == {"agree"}
    assert sorted(ended) == sorted(names)
    if jobs == 1:
        assert ended == names
    else:
        assert ended[0] != "by.late"  # told as they end


def test_several_at_a_time_are_counted_until_the_last(tmp_path: Path, machine: FakeMachine) -> None:
    class Statuses(SilentProgress):
        def status(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    scenarios = [replace(SCENARIO, name=f"by.{name}") for name in "abc"]
    run_scenarios(fake_bench(tmp_path), scenarios, 2, Statuses(), lambda r: said.append("line"))
    counted = [f"{n} of 3 scenarios done, 2 at a time" for n in range(3)]
    assert said == [counted[0], "line", counted[1], "line", counted[2], "line"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_trouble_does_not_end_the_others(
    tmp_path: Path, machine: FakeMachine, jobs: int
) -> None:
    machine.says = {3: ["result ret=-1 errno=12 errname=ENOMEM"]}
    fine = Scenario("fine", "", "", lambda script: None, NEEDS)
    only_auto = replace(fine, name="auto", styles=("auto",))
    results = run_all(fake_bench(tmp_path), SCENARIO, only_auto, fine, jobs=jobs)
    assert [result.verdict for result in results] == ["DIVERGE", "skipped", "agree"]


def test_an_interruption_ends_all_and_leaves_nothing(tmp_path: Path, machine: FakeMachine) -> None:
    machine.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_all(fake_bench(tmp_path), SCENARIO, replace(SCENARIO, name="other"))
    assert len(machine.specs) == 1 and below(tmp_path / "runs") == []


@pytest.mark.parametrize("small", [False, True])
def test_the_form_of_the_program_is_in_the_run(
    tmp_path: Path, machine: FakeMachine, small: bool
) -> None:
    result = run(replace(fake_bench(tmp_path, keep=tmp_path / "keep"), small=small))
    assert machine.programs == [SCENARIO.program(Uapi("cap", 300), 1, small).text]
    facts = json.loads((Path(result.directory) / "run.json").read_text())
    assert facts["small"] is small
    assert (" --small" in facts["command"]) == (" --small" in result.command) == small


def test_what_the_pes_choose_is_in_the_run(tmp_path: Path, machine: FakeMachine) -> None:
    choices = Choices(visibility=Visibility.DSB, zero_ahead=8)
    result = run(replace(fake_bench(tmp_path, keep=tmp_path / "keep"), choices=choices))
    assert machine.specs[0].plugin_options == ("zero_ahead=8", "visibility=dsb")
    assert load(Path(result.directory)).about.choices == choices


def test_what_is_injected_is_in_the_run(tmp_path: Path, machine: FakeMachine) -> None:
    own = replace(SCENARIO, inject=("fill,append=3",))
    bench = replace(fake_bench(tmp_path, keep=tmp_path / "keep"), injections=(parse("gpf"),))
    about = load(Path(run(bench, own).directory)).about
    assert machine.specs[0].plugin_options == (
        "inject=fill:append=3:times=1",
        "inject=gpf:append=1:times=1:report=fsc:late=0",
    )
    assert [injection.what.word for injection in about.injections] == ["fill", "gpf"]
    assert about.foreign
    about = load(Path(run(replace(bench, injections=()), own).directory)).about
    assert not about.foreign
    skipped = run(replace(bench, uapi=Uapi("none")), own)
    assert skipped.verdict == "skipped" and "injects" in (skipped.skipped or "")


# --- with a process in the place of QEMU --------------------------------------


def test_a_whole_run_with_a_fake_qemu(tmp_path: Path) -> None:
    program = SCENARIO.program(Uapi("cap", 300), 1).text
    qemu = fake_qemu(
        tmp_path / "qemu",
        f"boot(); agent.write({channel_bytes(program)!r})\n"
        f"open(trace, 'wb').write({make_trace([mark(3), mark(3, 1)]).data!r})\n"
        "say('reboot: Power down')",
    )
    keep = tmp_path / "keep"
    result = run(fake_bench(tmp_path, qemu=qemu, keep=keep))
    assert (result.verdict, result.error) == ("agree", None)
    assert "Power down" in load(Path(result.directory)).console
    assert "ram" not in below(Path(result.directory))


def test_a_qemu_that_crashes(tmp_path: Path) -> None:
    qemu = fake_qemu(tmp_path / "qemu", "boot(); sys.exit('no such machine')")
    result = run(fake_bench(tmp_path, qemu=qemu, limits=Limits(boot=60, stall=60, total=90)))
    assert result.verdict == "error"
    assert "QEMU ended with status 1: no such machine" in str(result.error)
    assert result.directory in str(result.error) and Path(result.directory).is_dir()


# --- what is told to people ---------------------------------------------------


def test_a_dry_run_prints_what_would_be_run(tmp_path: Path, machine: FakeMachine) -> None:
    bench = fake_bench(tmp_path / "with space", seed=5)
    command, _, rest = dry_run(bench, SCENARIO).partition("\n")
    expected = compose(bench.machine(NEEDS), ("no-such-qemu",), Path("RUN_DIR"))
    assert tuple(shlex.split(command)) == expected
    assert rest == SCENARIO.program(bench.uapi, 5).text
    small = dry_run(replace(bench, small=True), SCENARIO)
    assert small.partition("\n")[2] == SCENARIO.program(bench.uapi, 5, True).text != rest
    assert machine.specs == [] and below(tmp_path / "runs") == []


PATHS = st.none() | st.text(
    st.characters(exclude_categories=["C"], exclude_characters="\0"), min_size=1, max_size=12
).map(lambda name: Path("/", name))
UAPIS = st.sampled_from([None, "cap", "cap:1", "cap:241", "auto", "none"])
CHOICES = st.builds(
    Choice,
    kernel=PATHS,
    vmlinux=PATHS,
    linux=PATHS,
    debug=st.booleans(),
    uapi=UAPIS,
    qemu=PATHS,
    mode=st.sampled_from(Mode),
    seed=st.integers(0, (1 << 64) - 1),
    small=st.booleans(),
    inject=st.lists(st.sampled_from(["fill", "abort,pe=1,late=3"]), max_size=3).map(tuple),
    choices=st.sampled_from(["", "worst", "random", "visibility=dsb"]),
)


@given(choice=CHOICES)
def test_the_command_of_a_result_makes_the_same_choice(
    tmp_path_factory: pytest.TempPathFactory, choice: Choice
) -> None:
    """Through the command line itself, whatever the user's files are called."""
    bench = replace(
        fake_bench(tmp_path_factory.getbasetemp()),
        mode=choice.mode, seed=choice.seed, command=choice.options, small=choice.small,
    )  # fmt: skip
    program, *words = shlex.split(bench.repeat("buffer.full"))
    chosen: list[Choice] = []

    def prepare(asked: Choice, progress: object, boots: bool) -> Bench:
        chosen.append(asked)
        raise UsageError("this is far enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qemu_model.cli.session.prepare", prepare)
        assert main(words) == Exit.USAGE
    assert program == "hdbss" and chosen == [choice]
