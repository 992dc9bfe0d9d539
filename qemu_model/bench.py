# SPDX-License-Identifier: GPL-2.0-or-later
"""What the bench costs: each figure a ratio of two things measured in turn in one run.

Absolute times say more about the host than about us, so each one is only printed
beside the ratio that it went into.
"""

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qemu_model import session
from qemu_model.channel import Channel, Result, integer
from qemu_model.checkers.mirror import check_trace
from qemu_model.errors import InfrastructureError
from qemu_model.machine.command import MachineSpec
from qemu_model.machine.progress import Progress
from qemu_model.machine.vm import run_machine
from qemu_model.program import PAGE, Program
from qemu_model.report.result import Exit
from qemu_model.runner import Bench, passing_directory
from qemu_model.scenarios.catalogue import select
from qemu_model.scenarios.scenario import SLOT_GPA, Needs
from qemu_model.trace import count_records, read_trace

_TURNS = 5
_PAGES = 8192
_EMULATION_LIMIT = 1.15
_DIRTYING_LIMIT = 0.15
_MILLION_LIMIT = 10.0
"""Seconds of processor time in which the model has to check a million records."""
_SAMPLE = 0.05
"""Seconds between two looks at QEMU's memory."""


@dataclass(frozen=True)
class Figure:
    """One ratio, what it was made from, and whether it is within its limit."""

    name: str
    ratio: float
    words: str
    good: bool = True

    def __str__(self) -> str:
        return f"{self.name:<16} {self.ratio:7.3f}  {self.words}{'' if self.good else '  TOO MUCH'}"


class _Machines:
    """Runs programs one after the other and throws their directories away."""

    def __init__(self, bench: Bench, progress: Progress) -> None:
        self._bench = bench
        self._progress = progress

    def run(
        self, spec: MachineSpec, program: Program, look: Callable[[Path, Channel], None]
    ) -> float:
        """Run ``program``, let ``look`` see its directory, return the seconds it took."""
        with passing_directory(self._bench, "bench") as directory:
            outcome = run_machine(
                spec, self._bench.qemu, program.text, directory, self._bench.limits, self._progress
            )
            outcome.channel.require_complete()
            look(directory, outcome.channel)
            return outcome.seconds


def _nothing(directory: Path, channel: Channel) -> None:
    pass


def _best(machines: _Machines, program: Program, *specs: MachineSpec) -> list[float]:
    """The shortest time of each machine, run in turn with the others."""
    seconds: list[list[float]] = [[] for _ in specs]
    for _ in range(_TURNS):
        for spec, times in zip(specs, seconds, strict=True):
            times.append(machines.run(spec, program, _nothing))
    return [min(times) for times in seconds]


def watching(bench: Bench, machines: _Machines) -> Figure:
    """A scenario with many flushes, with somebody looking at each bitmap and without."""
    (scenario,) = select(["flush.put"])
    program = scenario.program(bench.uapi, bench.seed)
    watched = bench.machine(scenario.needs)
    mine, plain = _best(machines, program, watched, replace(watched, flushes=None))
    words = (
        f"{scenario.name}: {mine:.2f} s with a look at each flush, {plain:.2f} s without "
        f"(at most {_EMULATION_LIMIT:g})"
    )
    return Figure("watching", mine / plain, words, mine / plain <= _EMULATION_LIMIT)


def emulation(bench: Bench, machines: _Machines) -> Figure:
    """Boot and plain dirty logging, with the plugin and without."""
    (scenario,) = select(["baseline.write-protect"])
    program = scenario.program(bench.uapi, bench.seed)
    with_plugin = bench.machine(scenario.needs)
    mine, plain = _best(machines, program, with_plugin, replace(with_plugin, plugin=None))
    words = (
        f"boot + write-protect: {mine:.2f} s with the plugin, {plain:.2f} s without "
        f"(at most {_EMULATION_LIMIT:g})"
    )
    return Figure("emulation", mine / plain, words, mine / plain <= _EMULATION_LIMIT)


def _dirtying_program(bench: Bench) -> tuple[Program, list[tuple[str, int, int]]]:
    program = Program()
    program.add("uapi", cap=bench.uapi.number)
    program.add("vm")
    program.add("vcpu", 0)
    program.add("slot", 0, gpa=hex(SLOT_GPA), pages=_PAGES, mem="anon")
    program.add("log", 0, "on")
    rounds: list[tuple[str, int, int]] = []
    value = 1

    def store() -> int:
        nonlocal value
        value += 1
        return program.add(
            "run", 0, "stride", gpa=hex(SLOT_GPA), count=_PAGES, stride=PAGE, value=value
        )

    store()
    program.add("get", 0)
    for _ in range(_TURNS):
        for kind in ("write-protect", "hdbss"):
            if kind == "hdbss":
                program.add("hdbss", "on", order=9)
                store()  # maps the pages writable-clean for the next round
                program.add("get", 0)
            before = program.add("clock")
            store()
            rounds.append((kind, before, program.add("clock")))
            program.add("get", 0)
            if kind == "hdbss":
                program.add("hdbss", "off")
    return program, rounds


def _clock(results: Mapping[int, Result], line: int) -> int:
    """Nanoseconds that the program's ``clock`` told; InfrastructureError if it did not."""
    result = results.get(line)
    try:
        return integer(result.fields["ns"] if result is not None else "")
    except (KeyError, ValueError) as error:
        raise InfrastructureError(f"the benchmark's line {line} (clock) tells no time") from error


def dirtying(bench: Bench, machines: _Machines) -> Figure:
    """The guest's time for storing to N pages, with HDBSS and with write protection."""
    program, rounds = _dirtying_program(bench)
    times: dict[str, list[int]] = {"write-protect": [], "hdbss": []}

    def look(directory: Path, channel: Channel) -> None:
        results = {f.line: f for f in channel.frames if isinstance(f, Result)}
        failed = next((r for r in results.values() if r.ret < 0), None)
        if failed is not None:
            raise InfrastructureError(f"the benchmark's line {failed.line} ({failed.op}) failed")
        for kind, before, after in rounds:
            times[kind].append(_clock(results, after) - _clock(results, before))

    # While somebody looks at a flush the guest's clock goes on.
    machines.run(replace(bench.machine(Needs()), flushes=None), program, look)
    mine, plain = (statistics.median(times[kind]) / 1e6 for kind in ("hdbss", "write-protect"))
    words = (
        f"{_PAGES} pages: {mine:.1f} ms with HDBSS, {plain:.1f} ms with write protection "
        f"(at most {_DIRTYING_LIMIT:g})"
    )
    return Figure("dirtying", mine / plain, words, mine / plain <= _DIRTYING_LIMIT)


class _Watcher(threading.Thread):
    """Samples the anonymous memory of this process's QEMU; ``peak`` in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(_SAMPLE):
            for children in Path("/proc/self/task").glob("*/children"):
                try:
                    for pid in children.read_text().split():
                        self.peak = max(self.peak, _anonymous(Path("/proc") / pid / "status"))
                except OSError:
                    continue  # it has just ended

    def end(self) -> int:
        """Stop and return the peak."""
        self._end.set()
        self.join()
        return self.peak


def _anonymous(status: Path) -> int:
    for line in status.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def model(bench: Bench, machines: _Machines) -> Figure:
    """Records checked per second of processor time against records produced per second."""
    (scenario,) = select(["buffer.orders"])
    records, checked = 0, 0.0

    def look(directory: Path, channel: Channel) -> None:
        nonlocal records, checked
        trace = read_trace(directory / "trace.bin")
        records = trace.count
        start = time.process_time()
        found = check_trace(trace)
        checked = time.process_time() - start
        if found:
            raise InfrastructureError(f"the trace does not agree: {found[0].summary}")

    program = scenario.program(bench.uapi, bench.seed)
    produced = machines.run(bench.machine(scenario.needs), program, look)
    million = checked / records * 1e6
    words = (
        f"records checked / produced per second; {million:.1f} s for a million "
        f"(at most {_MILLION_LIMIT:g})"
    )
    return Figure("reference model", produced / checked, words, million <= _MILLION_LIMIT)


def memory(bench: Bench, machines: _Machines) -> Figure:
    """QEMU's anonymous memory with a trace and without."""
    (scenario,) = select(["buffer.orders"])
    program = scenario.program(bench.uapi, bench.seed)
    records, peaks = 0, {}

    def look(directory: Path, channel: Channel) -> None:
        nonlocal records
        records = count_records(directory / "trace.bin") or records

    for traced in (False, True):
        watcher = _Watcher()
        watcher.start()
        try:
            machines.run(replace(bench.machine(scenario.needs), trace=traced), program, look)
        finally:
            peaks[traced] = watcher.end()
    if not peaks[False]:
        raise InfrastructureError(
            "QEMU's memory cannot be seen: this host's kernel has no /proc/PID/task/TID/children"
        )
    per_million = (peaks[True] - peaks[False]) / records
    words = f"QEMU with a trace / without; {per_million:+.2f} MB for a million records"
    return Figure("plugin memory", peaks[True] / peaks[False], words)


def run(progress: Progress, say: Callable[[str], None]) -> int:
    """Measure and print; exit code 1 when a ratio is beyond its limit."""
    bench = session.prepare(session.Choice(), progress)
    if bench.plugin is None:
        raise InfrastructureError("hdbss bench measures the plugin: without its QEMU it cannot")
    machines = _Machines(bench, progress)
    figures: list[Figure] = []
    for measure in (emulation, watching, dirtying, model, memory):
        figures.append(measure(bench, machines))
        progress.done()
        say(str(figures[-1]))
    return Exit.AGREE if all(figure.good for figure in figures) else Exit.DIVERGENCE
