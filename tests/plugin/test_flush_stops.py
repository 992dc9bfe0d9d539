# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin holds a PE at each flush, says what is flushed, and waits for the answer."""

import subprocess
import time
from pathlib import Path

import pytest

from qemu_model.arch.registers import HDBSSPROD_INDEX, SysReg, hdbss_base, hdbss_enabled
from qemu_model.buffers import Why
from qemu_model.machine.command import Mode, quote
from qemu_model.machine.flushservice import FlushService
from qemu_model.machine.flushwatch import Stop
from qemu_model.machine.kernelwatch import KernelWatch
from qemu_model.trace import Kind, Trace, count_records, read_trace
from tests.plugin.conftest import RUN_LIMIT, Bench


class Listener(KernelWatch):
    """Remembers what it was told, and how many records the trace had then."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace
        self.began: list[Stop] = []
        self.flushes: list[tuple[Stop, int]] = []
        self.buffers: list[tuple[Why, Stop]] = []
        self.lates = 0
        self.closed = False
        self.slow = 0.0

    def drain_begins(self, stop: Stop) -> None:
        self.began.append(stop)

    def flush(self, stop: Stop) -> None:
        self.flushes.append((stop, count_records(self.trace)))
        if self.slow:
            time.sleep(self.slow)
            self.slow = 0.0

    def buffer(self, why: Why, stop: Stop) -> None:
        self.buffers.append((why, stop))

    def returned(self, stop: Stop) -> None:
        raise AssertionError("nobody asked for returns")

    def late(self) -> None:
        self.lates += 1

    def close(self) -> None:
        self.closed = True


def run(
    bench: Bench, directory: Path, listener: Listener, mode: Mode, program: str = "smp.same_pages"
) -> tuple[Trace, str]:
    """Run a program whose flushes the listener hears of."""
    service = FlushService(listener)
    options = f"ram={quote(directory / 'ram')},trace={quote(listener.trace)}"
    options += f",flush-fd={service.theirs.fileno()}"
    argv = bench.argv(program, directory, smp=2, mode=mode, plugin_options=options)
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=(service.theirs.fileno(),),
    )
    try:
        service.start()
        _, stderr = process.communicate(timeout=RUN_LIMIT)
        service.finish()
    finally:
        process.kill()
        service.close()
        (directory / "ram").unlink(missing_ok=True)
    assert listener.closed
    return read_trace(listener.trace), stderr.decode()


def resets(trace: Trace) -> list[tuple[int, int, int, int, int]]:
    """(seq, PE, PC, INDEX before, base) of each write that made INDEX 0."""
    index: dict[int, int] = {}
    base: dict[int, int] = {}
    found = []
    for seq, kind, pe, flags, a, b, c, d, *_ in trace:
        if kind == Kind.APPEND:
            index[pe] = (flags & HDBSSPROD_INDEX.mask) + 1
        elif kind == Kind.ENTRY:
            index[pe], base[pe] = b & HDBSSPROD_INDEX.mask, hdbss_base(a)
        elif kind == Kind.WRITE and a == SysReg.HDBSSPROD_EL2:
            before, index[pe] = index.get(pe, 0), c & HDBSSPROD_INDEX.mask
            if before and not index[pe]:
                found.append((seq, pe, d, before, base.get(pe, 0)))
    return found


@pytest.mark.parametrize("mode", [Mode.PARALLEL, Mode.DETERMINISTIC], ids=str)
def test_every_flush_is_told_before_its_record(bench: Bench, tmp_path: Path, mode: Mode) -> None:
    listener = Listener(tmp_path / "trace.bin")
    trace, _ = run(bench, tmp_path, listener, mode)
    expected = resets(trace)
    assert expected
    for pe in (0, 1):
        told = [(stop, count) for stop, count in listener.flushes if stop.pe == pe]
        written = [reset for reset in expected if reset[1] == pe]
        assert len(told) == len(written)
        for (stop, count), (seq, _, pc, before, base) in zip(told, written, strict=True):
            assert stop.seq <= seq and count < seq
            assert (stop.pc, stop.hdbssprod & HDBSSPROD_INDEX.mask) == (pc, before)
            assert hdbss_base(stop.hdbssbr) == base
    reads = [r for r in trace if r[1] == Kind.READ and r[4] == SysReg.HDBSSPROD_EL2
             and r[5] & HDBSSPROD_INDEX.mask]  # fmt: skip
    assert len(listener.began) == len(reads)
    assert listener.lates == 0


def moments(trace: Trace, pe: int) -> list[tuple[Why, int, int]]:
    """(why, the first record that may follow, HDBSSBR_EL2) of each moment of a PE's buffer."""
    hdbssbr, enabled, appended, found = 0, False, False, []
    entered: int | None = None
    for seq, kind, number, _, a, _, c, *_ in trace:
        if number != pe:
            continue
        if kind == Kind.ENTRY:
            appended, entered = False, a
        elif kind == Kind.APPEND and not appended:
            appended = True
            found.append((Why.APPENDED, seq + 1, hdbssbr))
        elif kind == Kind.RESET:
            hdbssbr, enabled, entered = a, hdbss_enabled(c), None
        elif kind == Kind.WRITE:
            off = enabled and a == SysReg.VTCR_EL2 and not hdbss_enabled(c)
            other = enabled and a == SysReg.HDBSSBR_EL2 and c != hdbssbr
            if hdbssbr >> 12 and hdbssbr == entered and (off or other):
                found.append((Why.WITHDRAWN, seq, hdbssbr))
            if a == SysReg.VTCR_EL2:
                enabled = hdbss_enabled(c)
            elif a == SysReg.HDBSSBR_EL2:
                hdbssbr = c
                if c >> 12:
                    found.append((Why.ANNOUNCED, seq + 1, c))
    return found


@pytest.mark.parametrize("mode", [Mode.PARALLEL, Mode.DETERMINISTIC], ids=str)
def test_every_moment_of_a_buffer_is_told(bench: Bench, tmp_path: Path, mode: Mode) -> None:
    listener = Listener(tmp_path / "trace.bin")
    trace, _ = run(bench, tmp_path, listener, mode)
    assert {Why.ANNOUNCED, Why.APPENDED} <= {why for why, _ in listener.buffers}
    for pe in (0, 1):
        told = [(why, stop) for why, stop in listener.buffers if stop.pe == pe]
        expected = moments(trace, pe)
        assert [(why, stop.hdbssbr) for why, stop in told] == [
            (why, hdbssbr) for why, _, hdbssbr in expected
        ]
        mine = [record[0] for record in trace if record[2] == pe]
        for (why, stop), (_, seq, _) in zip(told, expected, strict=True):
            # Of this PE's own records none is between the look and its moment.
            between = [n for n in mine if min(stop.seq, seq) <= n < max(stop.seq, seq)]
            assert between == [], why


def test_a_slow_watcher_is_not_waited_for(bench: Bench, tmp_path: Path) -> None:
    listener = Listener(tmp_path / "trace.bin")
    listener.slow = 3.0
    trace, stderr = run(bench, tmp_path, listener, Mode.PARALLEL)
    assert len(listener.flushes) == len(resets(trace))
    assert listener.lates >= 1
    assert stderr.count("did not answer within 2000 ms") == 1


def test_a_watcher_that_fails_stops_nobody(bench: Bench, tmp_path: Path) -> None:
    class Failing(Listener):
        def flush(self, stop: Stop) -> None:
            raise ZeroDivisionError("a bug of ours")

    start = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        run(bench, tmp_path, Failing(tmp_path / "trace.bin"), Mode.PARALLEL)
    assert time.monotonic() - start < 60
    assert read_trace(tmp_path / "trace.bin").end == 0
