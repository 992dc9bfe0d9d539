# SPDX-License-Identifier: GPL-2.0-or-later
"""What the bench costs: ratios from known times, and the watcher of QEMU's memory."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qemu_model import bench
from qemu_model.bench import Figure, _anonymous, _Machines, _Watcher
from qemu_model.errors import InfrastructureError
from qemu_model.machine.command import MachineSpec
from qemu_model.machine.flushwatch import FlushPlan
from qemu_model.machine.lost import Outcome
from qemu_model.machine.progress import SilentProgress
from qemu_model.program import Operation, parse
from qemu_model.report.result import Exit
from qemu_model.runner import Bench
from qemu_model.scenarios.scenario import SLOT_GPA
from qemu_model.vmlinux.kernelmap import KernelMap
from tests.unit.checkers.factory import append
from tests.unit.fake_run import FakeMachine, below, fake_bench

LIMIT = 60.0
"""Seconds that a child process may take to get somewhere."""


@pytest.fixture
def ours(tmp_path: Path) -> Bench:
    return fake_bench(tmp_path)


def machines(ours: Bench) -> _Machines:
    return _Machines(ours, SilentProgress())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    fake = FakeMachine()
    monkeypatch.setattr(bench, "run_machine", fake)
    return fake


# --- figures ------------------------------------------------------------------


def test_a_figure_is_one_line() -> None:
    assert str(Figure("emulation", 1.0625, "a: 2 s, b: 1 s")) == (
        "emulation          1.062  a: 2 s, b: 1 s"
    )
    assert str(Figure("dirtying", 0.5, "pages", good=False)).endswith("0.500  pages  TOO MUCH")


def test_figures_stand_in_columns() -> None:
    figures = [Figure("reference model", 123.4, "x"), Figure("dirtying", 0.1, "x")]
    assert {str(figure).index("  x") for figure in figures} == {24}


# --- emulation ----------------------------------------------------------------


def timed(with_plugin: Sequence[float], without: Sequence[float]) -> Callable[[MachineSpec], float]:
    """Times for the machines with and without a plugin, in the order of the turns."""
    mine, plain = iter(with_plugin), iter(without)
    return lambda spec: next(plain if spec.plugin is None else mine)


def test_emulation_compares_the_best_of_five_turns(ours: Bench, machine: FakeMachine) -> None:
    machine.seconds = timed([9.0, 2.2, 2.4, 8.0, 7.0], [3.0, 3.0, 2.0, 5.0, 4.0])
    figure = bench.emulation(ours, machines(ours))
    assert figure.ratio == pytest.approx(1.1) and figure.good
    assert "2.20 s with the plugin, 2.00 s without" in figure.words
    # In turn, so that a host that becomes slower is fair to both; and the same otherwise.
    assert [spec.plugin is not None for spec in machine.specs] == [True, False] * 5
    assert all(spec.trace for spec in machine.specs)
    assert len(set(machine.programs)) == 1
    assert len({(spec.smp, spec.memory, spec.cmdline) for spec in machine.specs}) == 1


@pytest.mark.parametrize(("mine", "good"), [(1.0, True), (1.15, True), (1.16, False)])
def test_emulation_has_a_limit(ours: Bench, machine: FakeMachine, mine: float, good: bool) -> None:
    machine.seconds = timed([mine] * 5, [1.0] * 5)
    figure = bench.emulation(ours, machines(ours))
    assert figure.good is good and "at most 1.15" in figure.words


# --- watching -----------------------------------------------------------------


@pytest.mark.parametrize(("mine", "good"), [(1.0, True), (1.15, True), (1.16, False)])
def test_watching_has_a_limit(ours: Bench, machine: FakeMachine, mine: float, good: bool) -> None:
    plan = FlushPlan(KernelMap(0, 0, 0, 0, 0, b"", 12, {}, {}))
    machine.seconds = lambda spec: 1.0 if spec.flushes is None else mine
    watched = replace(ours, flushes=plan)
    figure = bench.watching(watched, machines(watched))
    assert figure.good is good and "at most 1.15" in figure.words
    assert figure.ratio == pytest.approx(mine)
    assert [spec.flushes for spec in machine.specs] == [plan, None] * 5


# --- dirtying -----------------------------------------------------------------


class Clocked(FakeMachine):
    """Its ``clock`` gives these nanoseconds, one after the other."""

    def __init__(self, ticks: Sequence[int], **more: Any) -> None:
        super().__init__(**more)
        self.ticks = ticks

    def __call__(self, spec: MachineSpec, qemu: Any, program: str, *more: Any) -> Outcome:
        lines = [operation.line for operation in parse(program) if operation.name == "clock"]
        ticks = zip(lines, self.ticks, strict=True)
        self.says = dict(self.says) | {
            line: (f"result ret=0 errno=0 ns={tick}",) for line, tick in ticks
        }
        return super().__call__(spec, qemu, program, *more)


def dirtying(
    monkeypatch: pytest.MonkeyPatch,
    ours: Bench,
    protect: Sequence[int],
    hdbss: Sequence[int],
    says: Mapping[int, Sequence[str]] | None = None,
) -> tuple[Figure, list[Operation]]:
    """Measure on a machine whose rounds take these milliseconds."""
    now, ticks = 5_000_000_000_000, []
    for pair in zip(protect, hdbss, strict=True):
        for milliseconds in pair:
            ticks += [now, now + milliseconds * 1_000_000]
            now += 10_000_000_000
    machine = Clocked(ticks, says=says or {})
    monkeypatch.setattr(bench, "run_machine", machine)
    figure = bench.dirtying(ours, machines(ours))
    (text,) = machine.programs
    return figure, parse(text).operations


def test_dirtying_compares_medians(monkeypatch: pytest.MonkeyPatch, ours: Bench) -> None:
    figure, _ = dirtying(monkeypatch, ours, [100, 900, 50, 200, 300], [10, 20, 18, 99, 30])
    assert figure.ratio == pytest.approx(20 / 200) and figure.good
    assert "20.0 ms with HDBSS, 200.0 ms with write protection" in figure.words


@pytest.mark.parametrize(("mine", "good"), [(15, True), (16, False), (100, False)])
def test_dirtying_has_a_limit(
    monkeypatch: pytest.MonkeyPatch, ours: Bench, mine: int, good: bool
) -> None:
    figure, _ = dirtying(monkeypatch, ours, [100] * 5, [mine] * 5)
    assert figure.good is good and "at most 0.15" in figure.words


def test_each_measured_round_starts_from_a_clean_log(
    monkeypatch: pytest.MonkeyPatch, ours: Bench
) -> None:
    """Between the clocks there is one pass over all pages, after a get and before a get."""
    _, operations = dirtying(monkeypatch, ours, [100] * 5, [10] * 5)
    names = [operation.name for operation in operations]
    assert names[:5] == ["uapi", "vm", "vcpu", "slot", "log"]
    assert operations[0].number("cap") == 300
    slot = operations[3]
    on, kinds, values = False, [], []
    for place, operation in enumerate(operations):
        if operation.name == "hdbss":
            on = operation.words[0] == "on"
        if operation.name == "run":
            assert operation.number("gpa") == slot.number("gpa") == SLOT_GPA
            assert operation.number("count") == slot.number("pages") == 8192
            assert operation.number("stride") == 4096
            values.append(operation.number("value"))
        if names[place : place + 3] == ["clock", "run", "clock"]:
            before = [name for name in names[:place] if name != "hdbss"]
            assert before[-1] == "get" and names[place + 3] == "get"
            if on:  # the pages have become writable-clean: stored to and got since it is on
                assert names[place - 3 : place] == ["hdbss", "run", "get"]
            kinds.append(on)
    assert kinds == [False, True] * 5 and not on
    assert len(set(values)) == len(values)  # or a store would not change its page


def test_a_benchmark_whose_operation_fails_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, ours: Bench
) -> None:
    says = {2: ["result ret=-1 errno=12"]}
    with pytest.raises(InfrastructureError, match=r"line 2 \(vm\) failed"):
        dirtying(monkeypatch, ours, [100] * 5, [10] * 5, says)


@pytest.mark.parametrize("time", ["", "ns=soon", "ns=1e9"])
def test_a_clock_that_tells_no_time_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, ours: Bench, time: str
) -> None:
    says = {line: [f"result ret=0 errno=0 {time}".strip()] for line in range(1, 99)}
    monkeypatch.setattr(bench, "run_machine", FakeMachine(says=says))
    with pytest.raises(InfrastructureError, match=r"line \d+ \(clock\) tells no time"):
        bench.dirtying(ours, machines(ours))


# --- the reference model ------------------------------------------------------


def processor(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let each measurement of processor time give ``seconds``."""
    times: Iterator[float] = iter([100.0, 100.0 + seconds])
    monkeypatch.setattr(bench, "time", SimpleNamespace(process_time=lambda: next(times)))


@pytest.mark.parametrize(("million", "good"), [(5.0, True), (9.99, True), (10.1, False)])
def test_the_model_has_to_check_a_million_records_in_time(
    monkeypatch: pytest.MonkeyPatch, ours: Bench, machine: FakeMachine, million: float, good: bool
) -> None:
    machine.seconds = lambda spec: 4.0
    records = 2  # BEGIN and END
    processor(monkeypatch, million * records / 1e6)
    figure = bench.model(ours, machines(ours))
    assert figure.good is good
    # (records / checked) / (records / produced)
    assert figure.ratio == pytest.approx(4.0 / (million * records / 1e6))
    assert f"{million:.1f} s for a million" in figure.words
    assert machine.specs[0].trace and machine.specs[0].plugin is not None


def test_a_trace_that_does_not_agree_is_no_measurement(ours: Bench, machine: FakeMachine) -> None:
    machine.events = [append(0, 0)]
    with pytest.raises(InfrastructureError, match="does not agree"):
        bench.model(ours, machines(ours))


# --- memory -------------------------------------------------------------------


def test_memory_with_a_trace_and_without(
    monkeypatch: pytest.MonkeyPatch, ours: Bench, machine: FakeMachine
) -> None:
    peaks = iter([40_000_000, 50_000_000])
    watcher = SimpleNamespace(start=lambda: None, end=lambda: next(peaks))
    monkeypatch.setattr(bench, "_Watcher", lambda: watcher)
    machine.events = [append(page, page) for page in range(998)]
    figure = bench.memory(ours, machines(ours))
    assert figure.ratio == pytest.approx(1.25)
    # 10 MB for 1000 records, BEGIN and END among them
    assert "+10000.00 MB for a million records" in figure.words
    assert [spec.trace for spec in machine.specs] == [False, True]
    assert all(spec.plugin is not None for spec in machine.specs)


def test_a_host_that_does_not_show_qemus_memory(
    monkeypatch: pytest.MonkeyPatch, ours: Bench, machine: FakeMachine
) -> None:
    monkeypatch.setattr(bench, "_anonymous", lambda status: 0)
    with pytest.raises(InfrastructureError, match="cannot be seen"):
        bench.memory(ours, machines(ours))


def test_the_anonymous_part_of_a_process(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tqemu\nVmRSS:\t  900 kB\nRssAnon:\t     123 kB\nRssFile:\t 7 kB\n")
    assert _anonymous(status) == 123 * 1024
    status.write_text("Name:\tkthreadd\n")
    assert _anonymous(status) == 0


@dataclass
class Child:
    """A process of ours that holds some memory."""

    process: subprocess.Popen[bytes]
    size: int


@pytest.fixture
def child() -> Iterator[Child]:
    size = 96 << 20
    program = f"held = b'x' * {size}; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            yield Child(process, size)
        finally:
            process.kill()


def watched_until(watcher: _Watcher, reached: Callable[[], bool]) -> int:
    watcher.start()
    end = time.monotonic() + LIMIT
    while not reached() and time.monotonic() < end:
        time.sleep(0.01)
    return watcher.end()


def test_the_watcher_sees_the_peak_of_a_child(child: Child) -> None:
    watcher = _Watcher()
    peak = watched_until(watcher, lambda: watcher.peak > 0)
    assert child.size <= peak < 2 * child.size
    assert not watcher.is_alive()


def test_the_peak_outlives_the_child(child: Child) -> None:
    watcher = _Watcher()

    def seen_and_gone() -> bool:
        if watcher.peak and child.process.poll() is None:
            child.process.kill()
            child.process.wait()
        return watcher.peak > 0

    assert watched_until(watcher, seen_and_gone) >= child.size


def test_the_watcher_outlives_a_child_that_ends_under_its_eyes(
    monkeypatch: pytest.MonkeyPatch, child: Child
) -> None:
    looks: list[Path] = []

    def vanishes(status: Path) -> int:
        looks.append(status)
        if len(looks) < 3:
            raise ProcessLookupError
        return 77 if len(looks) == 3 else 5

    monkeypatch.setattr(bench, "_anonymous", vanishes)
    watcher = _Watcher()
    assert watched_until(watcher, lambda: len(looks) > 4) == 77  # the peak, not the last
    assert Path(f"/proc/{child.process.pid}/status") in looks


# --- the machines and the command ---------------------------------------------


def test_directories_are_thrown_away(ours: Bench, machine: FakeMachine) -> None:
    bench.emulation(ours, machines(ours))
    assert len(machine.directories) == 10 and below(ours.runs) == []


def test_a_machine_that_is_lost_keeps_its_files(ours: Bench, machine: FakeMachine) -> None:
    """The message names them."""
    machine.lost = "Oops"
    with pytest.raises(InfrastructureError, match="Oops") as caught:
        bench.emulation(ours, machines(ours))
    (name,) = below(ours.runs)
    assert str(ours.runs / name) in str(caught.value)


def test_a_damaged_channel_is_no_measurement(ours: Bench, machine: FakeMachine) -> None:
    machine.cut_channel = True
    with pytest.raises(InfrastructureError, match="channel is damaged"):
        bench.emulation(ours, machines(ours))


def test_an_interruption_leaves_nothing(ours: Bench, machine: FakeMachine) -> None:
    machine.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.emulation(ours, machines(ours))
    assert len(machine.directories) == 1 and below(ours.runs) == []


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ((), Exit.AGREE),
        (("emulation",), Exit.DIVERGENCE),
        (("watching",), Exit.DIVERGENCE),
        (("model",), Exit.DIVERGENCE),
        (("dirtying", "memory"), Exit.DIVERGENCE),
    ],
)
def test_a_figure_beyond_its_limit_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, ours: Bench, bad: tuple[str, ...], code: Exit
) -> None:
    names = ["emulation", "watching", "dirtying", "model", "memory"]
    figures = [Figure(name, 1.0, "words", name not in bad) for name in names]
    for figure in figures:
        monkeypatch.setattr(bench, figure.name, lambda *args, figure=figure: figure)
    monkeypatch.setattr("qemu_model.session.prepare", lambda choice, progress: ours)
    said: list[str] = []
    assert bench.run(SilentProgress(), said.append) == code
    assert said == [str(figure) for figure in figures]  # all of them, whatever the first says


def test_without_the_plugin_there_is_nothing_to_measure(
    monkeypatch: pytest.MonkeyPatch, ours: Bench
) -> None:
    gdb = replace(ours, plugin=None)
    monkeypatch.setattr("qemu_model.session.prepare", lambda choice, progress: gdb)
    with pytest.raises(InfrastructureError, match="measures the plugin"):
        bench.run(SilentProgress(), print)
