# SPDX-License-Identifier: GPL-2.0-or-later
"""Signs of life: growing files, records in a trace under construction, the clock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qemu_model.machine.watch import FileTail, TraceTail, Watchdog
from qemu_model.trace import HEADER, RECORD


def records(count: int, room: int = 0) -> bytes:
    """A trace with ``count`` records and room for more."""
    body = b"".join(RECORD.pack(n, 5, 0, 0, 0, 0, 0, 0, 0, 0) for n in range(1, count + 1))
    return bytes(HEADER.size) + body + bytes(RECORD.size * room)


def test_file_tail(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tail = FileTail(path)
    assert tail.read() == b""
    path.write_bytes(b"abc")
    assert tail.read(2) == b"ab"
    with path.open("ab") as file:
        file.write(b"de")
    assert tail.read() == b"cde"
    assert (tail.read(), tail.count) == (b"", 5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=5), st.integers(0, 300))
def test_trace_tail_counts(tmp_path: Path, steps: list[int], room: int) -> None:
    path = tmp_path / "trace"
    path.unlink(missing_ok=True)
    tail, total = TraceTail(path), 0
    assert tail.update() == 0
    for step in steps:
        total += step
        path.write_bytes(records(total, room))
        assert tail.update() == total


@pytest.mark.parametrize("data", [b"", b"x" * 63, bytes(64), bytes(64 + 9)])
def test_trace_that_is_hardly_there(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "trace").write_bytes(data)
    assert TraceTail(tmp_path / "trace").update() == 0


def test_watchdog() -> None:
    watchdog = Watchdog()
    watchdog.see(1, 2)
    time.sleep(0.05)
    watchdog.see(1, 2)
    assert watchdog.stalled >= 0.05
    watchdog.see(1, 3)
    assert watchdog.stalled < 0.05
    assert watchdog.elapsed >= 0.05
