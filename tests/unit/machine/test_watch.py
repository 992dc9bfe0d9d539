# SPDX-License-Identifier: GPL-2.0-or-later
"""Signs of life: growing files, the clock."""

from __future__ import annotations

import time
from pathlib import Path

from qemu_model.machine.watch import FileTail, Watchdog


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


def test_watchdog() -> None:
    watchdog = Watchdog()
    watchdog.see(1, 2)
    time.sleep(0.05)
    watchdog.see(1, 2)
    assert watchdog.stalled >= 0.05
    watchdog.see(1, 3)
    assert watchdog.stalled < 0.05
    assert watchdog.elapsed >= 0.05
