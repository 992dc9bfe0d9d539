# SPDX-License-Identifier: GPL-2.0-or-later
"""Signs of life of a running machine: growing files, and the clock."""

from __future__ import annotations

import time
from pathlib import Path


class FileTail:
    """Reads what is added to a file that another process writes; the file may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        """Bytes read so far."""

    def read(self, limit: int = 1 << 20) -> bytes:
        """Return at most ``limit`` new bytes."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.count)
                data = file.read(limit)
        except FileNotFoundError:
            return b""
        self.count += len(data)
        return data


class Watchdog:
    """Knows how long nothing has moved.

    ``stalled`` is the number of seconds since the signs of life last changed.
    """

    def __init__(self) -> None:
        self.start = time.monotonic()
        self._changed = self.start
        self._signs: tuple[int, ...] = ()

    def see(self, *signs: int) -> None:
        """Take the present counts of everything that moves in a living machine."""
        if signs != self._signs:
            self._signs = signs
            self._changed = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def stalled(self) -> float:
        """Seconds without a sign of life."""
        return time.monotonic() - self._changed
