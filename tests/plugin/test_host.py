# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin's plain C under ASan and UBSan, and the traces that its writer leaves."""

from collections import Counter
from pathlib import Path

import pytest

from qemu_model.trace import Header, Kind, read_trace
from tests.plugin.conftest import PLUGIN, Make

THREADS, EACH = 4, 20000
"""As in host/test_trace.c."""


@pytest.fixture(scope="module")
def traces(make: Make) -> Path:
    """Build and run every host test; the directory that they wrote to."""
    return make(PLUGIN, "check-host")


def test_host_tests_ran(traces: Path) -> None:
    ran = {path.name for path in traces.glob("test_*") if path.is_file()}
    sources = {path.stem for path in (Path(__file__).parent / "host").glob("test_*.c")}
    assert ran == sources
    assert len(ran) == 6


def test_writer_with_threads(traces: Path) -> None:
    trace = read_trace(traces / "whole.trace")
    assert trace.header == Header(0x40000000, 0x1000000, THREADS, "plugin")
    assert trace.end == 0
    assert trace.count == THREADS * EACH + 2
    records = list(trace)
    marks = Counter((record[2], record[4]) for record in records[1:-1])
    assert set(marks.values()) == {1}
    assert all(record[4] == record[3] and record[9] == record[2] for record in records[1:-1])
    # what one PE wrote is in its order
    for pe in range(THREADS):
        assert [record[4] for record in records[1:-1] if record[2] == pe] == list(range(EACH))


def test_writer_at_its_limit(traces: Path) -> None:
    for name, limit in (("limited", 50000), ("tiny", 2)):
        path = traces / f"{name}.trace"
        trace = read_trace(path)
        assert (trace.count, trace.end) == (limit, 1)
        assert path.stat().st_size == 64 * (limit + 1)


def test_writer_killed(traces: Path) -> None:
    trace = read_trace(traces / "killed.trace")
    assert [record[1] for record in trace] == [Kind.BEGIN, Kind.MARK]
    assert trace.end is None


def test_writer_without_disk_space(traces: Path) -> None:
    trace = read_trace(traces / "full.trace")
    assert trace.end is None
    assert trace.count == 2 * 16384 - 1


def test_every_reset_is_recorded(traces: Path) -> None:
    """As in host/test_vcpu.c: of all, by themselves; of one; of all in one thread."""
    records = list(read_trace(traces / "resets.trace"))[1:-1]
    assert {record[1] for record in records} == {Kind.RESET}
    assert {record[4:] for record in records} == {(0,) * 6}
    assert [record[2] for record in records] == [1, 0, 2, 2, 2, 0, 1, 2]


def test_clang_agrees(make: Make) -> None:
    """No warning with the other compiler either."""
    make(PLUGIN, "CC=clang")
