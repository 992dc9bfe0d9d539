# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking for seeded bugs: scenarios are run until one of them diverges.

A bug is found by a divergence, and by nothing else: a machine that is lost or does not
come to its end says that something is wrong, but not what.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from qemu_model.bugs import NONE, Attempt, Bug
from qemu_model.checkers.finding import Divergence
from qemu_model.jobs import run_jobs
from qemu_model.machine.command import Mode
from qemu_model.machine.progress import Progress, SilentProgress
from qemu_model.report.result import Exit, Result
from qemu_model.runner import Bench, run_scenario
from qemu_model.scenarios.catalogue import SCENARIOS
from qemu_model.scenarios.catalogue import select as select_scenarios

Prepare = Callable[[str, Attempt], Bench]
"""Name of a bug, or NONE, and an attempt to find it -> the bench for that."""


@dataclass(frozen=True)
class Hunt:
    """What became of one bug."""

    bug: Bug
    runs: tuple[Result, ...]
    """In their order; if it was found, by the last one."""
    attempt: Attempt
    """The one that came last."""
    seconds: float

    @property
    def found(self) -> Result | None:
        """The run that found it."""
        last = self.runs[-1]
        return last if last.verdict == "DIVERGE" else None

    @property
    def finding(self) -> Divergence | None:
        """What was found: by the checker that ought to, else the first of the report."""
        if self.found is None:
            return None
        divergences = self.found.divergences
        named = (d for d in divergences if d.checker == self.attempt.checker)
        return next(named, divergences[0])


def attempts(bug: Bug) -> Iterator[Attempt]:
    """Where to look first, then the rest of the catalogue, with the same choices."""
    yield from bug.attempts
    choices = bug.attempts[0].choices
    for scenario in SCENARIOS:
        tried = any((a.scenario, a.mode) == (scenario.name, Mode.PARALLEL) for a in bug.attempts)
        if not scenario.holds and not tried:
            yield Attempt(scenario.name, choices=choices)


def hunt(bug: Bug, prepare: Prepare, progress: Progress) -> Hunt:
    """Run scenarios on the kernel with the bug until one finds it."""
    started = time.monotonic()
    runs: list[Result] = []
    last = bug.attempts[0]
    for attempt in attempts(bug):
        last = attempt
        (scenario,) = select_scenarios([attempt.scenario])
        bench = prepare(bug.name, attempt)
        progress.status(f"{bug.name}: {attempt.scenario}")
        result = run_scenario(bench, scenario, progress)
        if result.verdict == "DIVERGE" and bench.keep is None:
            # It is what was to be expected, and can be had again.
            shutil.rmtree(result.directory, ignore_errors=True)
            result = replace(result, directory="")
        runs.append(result)
        if result.verdict in ("DIVERGE", "BUG"):
            break
    return Hunt(bug, tuple(runs), last, time.monotonic() - started)


def hunt_all(
    bugs: Sequence[Bug],
    prepare: Prepare,
    jobs: int,
    progress: Progress,
    finished: Callable[[Hunt], None],
) -> list[Hunt]:
    """Look for bugs, ``jobs`` at a time; ``finished`` is called as each one ends."""
    hunts: dict[str, Hunt] = {}

    def done(result: Hunt) -> None:
        hunts[result.bug.name] = result
        finished(result)

    if jobs == 1:
        for bug in bugs:
            done(hunt(bug, prepare, progress))
    else:
        progress.status(f"looking for {len(bugs)} bugs, {jobs} at a time")
        run_jobs(hunt, [(bug, prepare, SilentProgress()) for bug in bugs], jobs, done)
    return [hunts[bug.name] for bug in bugs]


def control(
    hunts: Sequence[Hunt],
    prepare: Prepare,
    jobs: int,
    progress: Progress,
    finished: Callable[[Result], None],
) -> list[Result]:
    """Run what has found bugs on the same kernel without any: nothing may be found."""
    used = {replace(h.attempt, checker="") for h in hunts if h.found is not None}
    work = []
    for attempt in used:
        (scenario,) = select_scenarios([attempt.scenario])
        work.append((prepare(NONE, attempt), scenario, SilentProgress()))
    progress.status(f"running {len(work)} scenarios without a bug")
    results: dict[str, Result] = {}

    def done(result: Result) -> None:
        results[result.command] = result
        finished(result)

    run_jobs(run_scenario, work, jobs, done)
    return [results[command] for command in sorted(results)]


def exit_code(hunts: Sequence[Hunt], controls: Sequence[Result]) -> Exit:
    """1 when a bug was not found, or something without one; our own bugs outweigh that."""
    results = [*controls, *(run for h in hunts for run in h.runs)]
    if any(result.bug for result in results):
        return Exit.BUG
    if any(h.found is None for h in hunts) or any(r.verdict == "DIVERGE" for r in controls):
        return Exit.DIVERGENCE
    if any(result.verdict != "agree" for result in controls):
        return Exit.INFRASTRUCTURE
    return Exit.AGREE
