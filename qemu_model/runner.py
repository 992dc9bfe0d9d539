# SPDX-License-Identifier: GPL-2.0-or-later
"""From a scenario to its result: compose, run, read back, judge."""

import shlex
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from qemu_model.checkers.judge import judge
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.gdbstub.attach import GdbInterception
from qemu_model.jobs import run_jobs
from qemu_model.machine.command import KernelImage, MachineSpec, Mode, compose
from qemu_model.machine.flushwatch import FlushPlan
from qemu_model.machine.progress import Progress, SilentProgress
from qemu_model.machine.qemu import Qemu
from qemu_model.machine.vm import Interception, Limits, run_machine
from qemu_model.model.choices import BEST, Choices
from qemu_model.model.injection import Injection, Injector, parse
from qemu_model.program import Program
from qemu_model.report.result import Result
from qemu_model.run import load
from qemu_model.rundir import in_use, run_directory
from qemu_model.scenarios.holds import Step
from qemu_model.scenarios.scenario import Needs, Scenario, Uapi
from qemu_model.vmlinux.elf import Vmlinux

_FAILED_KEPT = 20
"""Directories of failed runs that are kept in the cache."""
_FRESH = 3600.0
"""Seconds for which they are kept in any case."""


@dataclass(frozen=True)
class Bench:
    """What all runs of one command have in common."""

    qemu: Qemu
    kernel: KernelImage
    agent: Path
    plugin: Path | None
    """None in gdb mode, which needs none."""
    uapi: Uapi
    mode: Mode
    seed: int
    command: str
    """How the user chose kernel and QEMU: the options that repeat it."""
    limits: Limits
    """What a machine may take."""
    runs: Path
    """Where run directories are made."""
    keep: Path | None = None
    """Where they stay; None keeps failed ones only."""
    flushes: FlushPlan | None = None
    """How the kernel's dirty bitmaps are watched; None where they are not."""
    unwatched: str = ""
    """Why they are not."""
    small: bool = False
    """Whether the programs are of the small form."""
    choices: Choices = BEST
    """What the PEs choose where the architecture leaves it open."""
    injections: tuple[Injection, ...] = ()
    """What the user wants to go wrong, in addition to what the scenarios inject."""

    def repeat(self, scenario: str) -> str:
        """The command line that runs a scenario again in the same way."""
        small = " --small" if self.small else ""
        return f"hdbss run {scenario} --mode {self.mode} --seed {self.seed}{small}{self.command}"

    def program(self, scenario: Scenario) -> Program:
        """The agent's program for a scenario."""
        return scenario.program(self.uapi, self.seed, self.small)

    def driven_by(self, uapi: Uapi) -> "Bench":
        """The same bench for a kernel whose HDBSS is driven in this way."""
        return replace(self, uapi=uapi)

    @property
    def why_unwatched(self) -> str:
        """Why a run leaves no flushes.jsonl."""
        return self.unwatched or "the PEs had no FEAT_HDBSS"

    def injected(self, own: Sequence[str] = ()) -> tuple[Injection, ...]:
        """What is injected: a scenario's own, then the user's; everything said."""
        every = (*map(parse, own), *self.injections)
        Injector(every)  # not too many
        return tuple(injection.settled(self.choices, self.seed) for injection in every)

    def machine(self, needs: Needs, inject: Sequence[str] = ()) -> MachineSpec:
        """The machine for a scenario, which injects ``inject``."""
        options = [f"{name}={value}" for name, value in self.choices.words()]
        options += [f"inject={injection}".replace(",", ":") for injection in self.injected(inject)]
        return MachineSpec(
            kernel=self.kernel,
            agent=self.agent,
            plugin=self.plugin if needs.feature and self.mode is not Mode.GDB else None,
            gdbstub=needs.feature and self.mode is Mode.GDB,
            mode=self.mode,
            smp=needs.cpus,
            memory=needs.memory,
            seed=self.seed,
            cmdline=tuple(needs.cmdline.split()),
            flushes=self.flushes if needs.feature else None,
            plugin_options=tuple(options),
        )


def _directory(bench: Bench, name: str) -> AbstractContextManager[Path]:
    return run_directory(bench.keep, bench.runs, f"{name}.{bench.mode}", "run.json")


@contextmanager
def passing_directory(bench: Bench, name: str) -> Iterator[Path]:
    """A run directory for the length of the block.

    It stays where the user wants to keep all, and after an error that tells people to
    look into it.
    """
    with _directory(bench, name) as directory:
        try:
            yield directory
        except (InfrastructureError, UsageError):
            _forget_old_failures(bench.runs)
            raise
        except BaseException:
            _throw_away(bench, directory)
            raise
        _throw_away(bench, directory)


def _throw_away(bench: Bench, directory: Path) -> None:
    if bench.keep is None:
        shutil.rmtree(directory, ignore_errors=True)


def run_program(
    bench: Bench,
    name: str,
    program: Program,
    needs: Needs,
    directory: Path,
    progress: Progress,
    holds: tuple[Step, ...] = (),
    attend: Callable[[GdbInterception], Interception] | None = None,
    inject: Sequence[str] = (),
) -> None:
    """Run one program on its machine; the directory then holds a finished run.

    ``attend`` puts something between the machine and the gdbstub interceptor.
    """
    machine = bench.machine(needs, inject)
    why = "" if machine.flushes is not None else bench.why_unwatched
    watched = {"watched": machine.flushes is not None, "why": why}
    injected = bench.injected(inject)
    interception: Interception | None = None
    if machine.gdbstub:
        plain = GdbInterception(machine, holds, program, choices=bench.choices, injections=injected)
        interception = plain if attend is None else attend(plain)
    run_machine(
        machine,
        bench.qemu,
        program.text,
        directory,
        limits=bench.limits,
        progress=progress,
        facts={
            "scenario": name,
            "uapi": str(bench.uapi),
            "feature": needs.feature,
            "small": bench.small,
            "choices": str(bench.choices),
            "injections": [str(injection) for injection in injected],
            "own_injections": len(inject),
            "command": bench.repeat(name),
            "flushes": watched,
            "buffers": watched,
        },
        interception=interception,
    )


@cache
def _has_symbol(vmlinux: Path | None, name: str) -> bool:
    return vmlinux is not None and Vmlinux(vmlinux).find(name) is not None


def why_skipped(bench: Bench, scenario: Scenario) -> str:
    """Why a scenario is not run with this kernel or in this mode; empty if it is."""
    if bench.uapi.style not in scenario.styles:
        return f"it means nothing for a kernel that is driven by --uapi {bench.uapi.style}"
    if scenario.inject and bench.uapi.style == "none":
        return "it injects what happens to HDBSS, which this kernel does not use"
    needs = scenario.needs
    if needs.symbol and not _has_symbol(bench.kernel.vmlinux, needs.symbol):
        return f"it needs a kernel with {needs.config}, and its vmlinux"
    if bench.mode is Mode.GDB:
        return scenario.not_in_gdb
    return "it holds CPUs, which needs --mode gdb" if scenario.holds else ""


def require_holds(bench: Bench, scenarios: Iterable[Scenario]) -> None:
    """UsageError for a scenario whose holds cannot be in this kernel, before any is run."""
    for scenario in scenarios:
        if scenario.holds and not why_skipped(bench, scenario):
            machine = bench.machine(scenario.needs)
            try:
                GdbInterception(machine, scenario.holds, bench.program(scenario)).require_holds()
            except UsageError as error:
                raise UsageError(f"{scenario.name}: {error}") from error


def run_scenario(bench: Bench, scenario: Scenario, progress: Progress) -> Result:
    """Run and judge one scenario; every trouble becomes part of the result."""
    started = time.monotonic()
    result = Result(
        scenario=scenario.name,
        mode=str(bench.mode),
        seed=bench.seed,
        seconds=0.0,
        command=bench.repeat(scenario.name),
        kernel=bench.kernel.description,
    )
    reason = why_skipped(bench, scenario)
    if reason:
        return replace(result, skipped=reason)
    with _directory(bench, scenario.name) as directory:
        result = _run_in(directory, bench, scenario, result, progress)
        result = replace(result, seconds=time.monotonic() - started)
        if bench.keep is None and result.verdict == "agree":
            shutil.rmtree(directory, ignore_errors=True)
            return result
    return replace(result, directory=str(directory))


def _run_in(
    directory: Path, bench: Bench, scenario: Scenario, result: Result, progress: Progress
) -> Result:
    """The result with what came out of the run."""
    try:
        program = bench.program(scenario)
        run_program(
            bench, scenario.name, program, scenario.needs, directory, progress, scenario.holds,
            inject=scenario.inject,
        )  # fmt: skip
        verdict = judge(load(directory))
    except (InfrastructureError, UsageError) as error:
        return replace(result, error=str(error))
    except Exception:
        # The run is what a report of our bug needs, and the other scenarios are not to blame.
        return replace(result, error=traceback.format_exc(), bug=True)
    except BaseException:
        _throw_away(bench, directory)
        raise
    return replace(
        result,
        figures=verdict.figures,
        divergences=verdict.divergences,
        unchecked=verdict.skipped,
    )


def dry_run(bench: Bench, scenario: Scenario) -> str:
    """What would be run: QEMU's command line and the agent's program."""
    program = bench.program(scenario)
    argv = compose(
        bench.machine(scenario.needs, scenario.inject), bench.qemu.argv_prefix, Path("RUN_DIR")
    )
    holds = "".join(f"# hold: {step}\n" for step in scenario.holds)
    return f"{shlex.join(argv)}\n{holds}{program.text}"


def run_scenarios(
    bench: Bench,
    scenarios: Sequence[Scenario],
    jobs: int,
    progress: Progress,
    finished: Callable[[Result], None],
) -> list[Result]:
    """Run scenarios, ``jobs`` at a time; results come in the catalogue's order.

    ``finished`` is called as each one ends.
    """
    results: dict[str, Result] = {}

    def done(result: Result) -> None:
        results[result.scenario] = result
        finished(result)

    if jobs == 1:
        for scenario in scenarios:
            progress.status(f"{len(results) + 1}/{len(scenarios)} {scenario.name}")
            done(run_scenario(bench, scenario, progress))
    else:
        work = [(bench, scenario, SilentProgress()) for scenario in scenarios]

        def tell() -> None:
            progress.status(f"{len(results)} of {len(scenarios)} scenarios done, {jobs} at a time")

        def another(result: Result) -> None:
            done(result)
            if len(results) < len(scenarios):
                tell()  # its line has taken the place of the last status

        tell()
        run_jobs(run_scenario, work, jobs, another)
    _forget_old_failures(bench.runs)
    return [results[scenario.name] for scenario in scenarios]


def _forget_old_failures(runs: Path) -> None:
    """Keep the newest ones, and all that may be in use or in a report on a screen."""
    try:
        found = [(d.stat().st_mtime, d) for d in runs.iterdir() if d.is_dir()]
    except OSError:
        return
    for changed, directory in sorted(found)[:-_FAILED_KEPT]:
        if time.time() - changed > _FRESH and not in_use(directory):
            shutil.rmtree(directory, ignore_errors=True)
