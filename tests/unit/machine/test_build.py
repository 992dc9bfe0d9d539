# SPDX-License-Identifier: GPL-2.0-or-later
"""A build step: log, progress, limit, reason, and the lock that outlives us."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_model.errors import InfrastructureError
from qemu_model.machine.build import run_step
from qemu_model.machine.cache import Building
from qemu_model.machine.progress import PlainProgress, SilentProgress, TerminalProgress


class Statuses(SilentProgress):
    """Keeps the statuses."""

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def status(self, text: str) -> None:
        self.statuses.append(text)


@pytest.fixture
def building(tmp_path: Path) -> Iterator[Building]:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield Building(tmp_path, lock, Statuses())
    os.close(lock)


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_log_is_appended_and_names_the_command(building: Building, tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_step(building, "first", ["echo", "one"], log, 10)
    run_step(building, "second", sh("echo two >&2"), log, 10)
    assert log.read_text() == "+ echo one\none\n+ sh -c echo two >&2\ntwo\n"


def test_progress_shows_the_last_line(building: Building, tmp_path: Path) -> None:
    run_step(building, "step", sh("echo one; echo two; sleep 0.5"), tmp_path / "log", 10)
    assert isinstance(building.progress, Statuses)
    assert building.progress.statuses[-1].endswith(" s: two")


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("a.c:1: error: first\nmake: *** [x] Error 2\n", "a.c:1: error: first"),
        ("only this\n\n", "only this"),
        ("", "no output"),
        ("x: error\ncp: No space left on device\n", "no space left on the device"),
    ],
)
def test_failure_gives_reason_and_log(
    building: Building, tmp_path: Path, output: str, reason: str
) -> None:
    (tmp_path / "text").write_text(output)
    log = tmp_path / "log"
    with pytest.raises(InfrastructureError, match=f"step failed: {reason}") as caught:
        run_step(building, "step", sh(f"cat {tmp_path}/text; exit 1"), log, 10)
    assert str(log) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_has_no_room_for_the_reason(
    building: Building, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4096))
    with pytest.raises(InfrastructureError, match="step failed: no space left on the device"):
        run_step(building, "step", sh("echo cc -c a.c; exit 1"), tmp_path / "log", 10)


def test_limit_ends_the_step(building: Building, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(InfrastructureError, match="step did not end within 0 s"):
        run_step(building, "step", ["sleep", "60"], tmp_path / "log", 0.3)
    assert time.monotonic() - start < 10


def test_build_processes_hold_the_lock(building: Building, tmp_path: Path) -> None:
    fcntl.flock(building.lock, fcntl.LOCK_EX)
    # Through the inherited descriptor it is ours, through a new one it is taken.
    script = f"flock -n {building.lock} || exit 7; flock -n {tmp_path}/lock true; echo $?"
    run_step(building, "step", sh(script), tmp_path / "log", 10)
    assert (tmp_path / "log").read_text().endswith("\n1\n")


def test_plain_progress_prints_lines_and_a_heartbeat() -> None:
    out = io.StringIO()
    plain = PlainProgress(out, interval=0.05)
    plain.status("too soon")
    plain.line("kept")
    time.sleep(0.06)
    plain.status("heartbeat")
    assert out.getvalue() == "kept\nheartbeat\n"


def test_terminal_progress_replaces_its_line() -> None:
    out = io.StringIO()
    terminal = TerminalProgress(out)
    terminal.status("working")
    terminal.line("kept")
    terminal.done()
    assert out.getvalue().startswith("\r\x1b[K")
    assert out.getvalue().endswith("working\r\x1b[Kkept\n")
