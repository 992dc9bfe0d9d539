# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin's plain C under ASan and UBSan, and the traces that its writer leaves."""

from collections import Counter
from pathlib import Path

import pytest

from qemu_model.trace import END_CLEAN, END_NO_SPACE, Header, Kind, read_trace
from tests.plugin.conftest import PLUGIN, Make

THREADS, EACH, CHUNK = 4, 20000, 16384
"""As in host/test_trace.c; a chunk is what the file grows by, header included."""


@pytest.fixture(scope="module")
def traces(make: Make) -> Path:
    """Build and run every host test; the directory that they wrote to."""
    return make(PLUGIN, "check-host")


def test_host_tests_ran(traces: Path) -> None:
    ran = {path.name for path in traces.glob("test_*") if path.is_file()}
    sources = {path.stem for path in (Path(__file__).parent / "host").glob("test_*.c")}
    assert ran == sources
    assert len(ran) == 10


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


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_writer_without_disk_space(traces: Path, chunks: int) -> None:
    """The last record says so; before it everything is as it would be with space."""
    trace = read_trace(traces / f"full{chunks}.trace")
    records = list(trace)
    assert trace.end == END_NO_SPACE
    assert trace.count == chunks * CHUNK - 1
    assert records[-1] == (trace.count, Kind.END, 0, 0, END_NO_SPACE, trace.count, 0, 0, 0, 0)
    assert {record[1] for record in records[1:-1]} == {Kind.MARK}
    assert (traces / f"full{chunks}.trace").stat().st_size == chunks * CHUNK * 64


def test_writer_whose_end_is_the_last_of_its_chunk(traces: Path) -> None:
    trace = read_trace(traces / "chunk.trace")
    assert (trace.count, trace.end) == (CHUNK - 1, END_CLEAN)
    assert (traces / "chunk.trace").stat().st_size == CHUNK * 64


def test_every_reset_is_recorded(traces: Path) -> None:
    """As in host/test_vcpu.c: of all, by themselves; of one; of all in one thread."""
    records = list(read_trace(traces / "resets.trace"))[1:-1]
    assert {record[1] for record in records} == {Kind.RESET}
    assert {record[4:] for record in records} == {(0,) * 6}
    assert [record[2] for record in records] == [1, 0, 2, 2, 2, 0, 1, 2]


def test_clang_agrees(make: Make) -> None:
    """No warning with the other compiler either."""
    make(PLUGIN, "CC=clang")


def test_flags_of_the_users(make: Make) -> None:
    """They come in addition: without ours no library can be linked."""
    make(PLUGIN, "CFLAGS=-O0")
