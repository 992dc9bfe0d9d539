# SPDX-License-Identifier: GPL-2.0-or-later
"""``hdbss conformance``: our bare-metal program checks the PE itself, without any Linux."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from qemu_model import ktap
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.mirror import check_trace
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.gdbstub.attach import BareInterception
from qemu_model.gdbstub.mi import find_gdb
from qemu_model.ktap import Outcome
from qemu_model.machine import images
from qemu_model.machine.baremetal import BareMachine, run_bare
from qemu_model.machine.cache import Cache
from qemu_model.machine.command import Mode, RunFiles
from qemu_model.machine.progress import Progress
from qemu_model.machine.qemu import Qemu, find_any_qemu, find_qemu
from qemu_model.model.choices import Choices, choose
from qemu_model.model.injection import Event, Injection, parse
from qemu_model.report.json import put
from qemu_model.report.result import Exit
from qemu_model.report.text import printable
from qemu_model.rundir import run_directory
from qemu_model.trace import read_trace

VERSION = 1
"""Of the JSON report."""
SMP_DEFAULT = 2
INJECT_VMID = 2
"""The VMID of the tests about injections (``guest_images/conformance/inject.c``): the
events that an injection counts are theirs."""
_LIMITS = {Mode.PARALLEL: 300.0, Mode.DETERMINISTIC: 300.0, Mode.GDB: 900.0}
"""Seconds for a run; it takes some 5 of them on an idle host, in gdb mode 40."""
_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_.-]+)?\Z")


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    names: tuple[str, ...] = ()
    """Groups of tests, or tests as GROUP.NAME; empty: all."""
    mode: Mode = Mode.PARALLEL
    smp: int = SMP_DEFAULT
    seed: int = 1
    choices: str = ""
    inject: str | None = None
    qemu: Path | None = None
    json: Path | None = None
    keep: Path | None = None


@dataclass(frozen=True)
class Findings:
    """What came out of a run."""

    report: ktap.Report
    records: int
    divergences: tuple[Divergence, ...]
    seconds: float

    @property
    def code(self) -> Exit:
        """The exit code: a finding outweighs trouble, trouble a skip."""
        if self.report.failed or self.divergences:
            return Exit.DIVERGENCE
        if not self.report.complete:
            return Exit.INFRASTRUCTURE
        skipped = self.report.count(Outcome.SKIP) == len(self.report.tests)
        return Exit.UNSUPPORTED if skipped else Exit.AGREE


def injection_for(text: str, choices: Choices, seed: int) -> Injection:
    """The injection as the PE and the program are told of it.

    UsageError where it names what the program chooses: PE, VMID and IPA.
    """
    injection = parse(text)
    for key in ("pe", "vmid", "ipa"):
        if getattr(injection, key) is not None:
            raise UsageError(f"--inject {text}: the program's own pages are meant, {key}= has no "
                             "meaning")  # fmt: skip
    settled = injection.settled(choices, seed)
    if settled.event is Event.RESET:
        return settled
    return parse(f"{settled},vmid={INJECT_VMID}")


def parameters(
    names: Sequence[str], mode: Mode, choices: Choices, injection: Injection | None
) -> str:
    """What the program is told (``guest_images/conformance/parameters.h``)."""
    words = [f"tests={','.join(names)}"] if names else []
    if mode is Mode.GDB:
        words.append("stops=yes")
    words += [f"{name}={value}" for name, value in choices.words()]
    if injection is not None:
        words.append(f"inject={_colons(injection)}")
    return " ".join(words)


def _colons(injection: Injection) -> str:
    return str(injection).replace(",", ":")


@contextmanager
def _directory(request: Request, store: Cache) -> Iterator[Path]:
    """The run directory; thrown away unless it is to be kept."""
    name = f"conformance.{request.mode}"
    with run_directory(request.keep, store.root / "runs", name, None) as directory:
        try:
            yield directory
        finally:
            if request.keep is None:
                shutil.rmtree(directory, ignore_errors=True)


def execute(
    request: Request,
    qemu: Qemu,
    program: Path,
    plugin: Path | None,
    directory: Path,
    progress: Progress,
    told: str | None = None,
) -> Findings:
    """Run the program in an empty directory and judge it.

    ``told`` replaces what the program is told of choices and injection.
    """
    choices = choose(request.choices, request.seed)
    injection = (
        None if request.inject is None else injection_for(request.inject, choices, request.seed)
    )
    options = [f"{name}={value}" for name, value in choices.words()]
    if injection is not None:
        options.append(f"inject={_colons(injection)}")
    machine = BareMachine(
        program,
        parameters(request.names, request.mode, choices, injection) if told is None else told,
        plugin if request.mode is not Mode.GDB else None,
        tuple(options),
        request.mode,
        request.smp,
        request.seed,
    )
    injections = () if injection is None else (injection,)
    interception = (
        BareInterception(program, request.smp, choices, injections)
        if request.mode is Mode.GDB
        else None
    )
    files = RunFiles(directory.absolute())
    start = time.monotonic()
    lines = run_bare(machine, qemu, files, _LIMITS[request.mode], progress, interception)
    report = ktap.parse(lines)
    records = 0
    divergences: tuple[Divergence, ...] = ()
    if files.trace.exists():
        trace = read_trace(files.trace)
        records, divergences = trace.count, tuple(check_trace(trace, choices))
    return Findings(report, records, divergences, time.monotonic() - start)


def _require_tests(names: Sequence[str], report: ktap.Report) -> None:
    """UsageError for a name that is neither a group's nor a test's."""
    if not report.complete:
        return
    for name in names:
        if not any(test.name == name or test.name.startswith(f"{name}.") for test in report.tests):
            raise UsageError(f"there is no test {name!r}: hdbss conformance prints all of them")


def document(request: Request, findings: Findings | None) -> dict[str, object]:
    """The report as plain data; without ``findings`` it has not come to its end."""
    about: dict[str, object] = {
        "version": VERSION,
        "complete": findings is not None and findings.report.complete,
        "exit": int(findings.code if findings is not None else Exit.INFRASTRUCTURE),
        "mode": str(request.mode),
        "smp": request.smp,
        "seed": request.seed,
        "choices": request.choices,
        "inject": request.inject,
    }
    if findings is not None:
        about["seconds"] = round(findings.seconds, 3)
        about["tests"] = [asdict(test) for test in findings.report.tests]
        about["records"] = findings.records
        about["divergences"] = [asdict(divergence) for divergence in findings.divergences]
    return about


def run(request: Request, store: Cache, progress: Progress, say: Callable[[str], None]) -> Exit:
    """Run the conformance program and print its KTAP report; returns the exit code.

    What is added to the report are diagnostic lines: the trace against the reference
    model, and the sum.  UsageError, InfrastructureError as everywhere.
    """
    for name in request.names:
        if _NAME.match(name) is None:
            raise UsageError(f"{name!r} is no name of a test")
    choices = choose(request.choices, request.seed)
    if request.inject is not None:
        injection_for(request.inject, choices, request.seed)
    if request.json is not None:
        # A path that cannot be written is told first; until the end it says "not complete".
        put(request.json, document(request, None))
    program = images.conformance(store, progress)
    plugin: Path | None = None
    if request.mode is Mode.GDB:
        find_gdb()
        qemu = find_any_qemu(store, progress, request.qemu)
    else:
        qemu = find_qemu(store, progress, request.qemu)
        plugin = images.plugin(store, progress)
    with _directory(request, store) as directory:
        findings = execute(request, qemu, program, plugin, directory, progress)
        progress.done()
        console = RunFiles(directory).console
        if console.exists():
            for line in console.read_text("utf-8", "replace").splitlines():
                say(printable(line))
    _require_tests(request.names, findings.report)
    for line in _summary(request, findings, qemu):
        say(f"# {printable(line)}")
    if request.json is not None:
        put(request.json, document(request, findings))
    code = findings.code
    if code is Exit.INFRASTRUCTURE:
        planned = findings.report.planned
        raise InfrastructureError(
            f"the program did not come to its end: {len(findings.report.tests)} of "
            f"{'no' if planned is None else planned} tests"
        )
    return code


def _summary(request: Request, findings: Findings, qemu: Qemu) -> Iterator[str]:
    for divergence in findings.divergences:
        yield f"trace: {divergence.summary}"
        yield f"  rule {divergence.rule}: required {divergence.required}, seen {divergence.seen}"
    if not findings.divergences:
        yield f"trace: {findings.records} records, as the reference model requires"
    yield (f"mode {request.mode}, {request.smp} PEs, QEMU {qemu.version}, {findings.seconds:.1f} s")
