# SPDX-License-Identifier: GPL-2.0-or-later
"""Signs of life of a running machine: growing files, new trace records, and the clock."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from qemu_model.trace import HEADER, RECORD

_KIND = struct.Struct("<H")
#: ``kind`` follows the 8 bytes of ``seq``.
_KIND_OFFSET = 8


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


class TraceTail:
    """Counts the records that a trace under construction holds, without reading them all.

    The file is longer than what is in it: the writer grows it in steps and publishes a
    record by writing its ``kind``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        """Records found so far."""

    def update(self) -> int:
        """Look again; return the number of records.

        Doubling steps, then bisection: some 40 reads of 2 bytes.  While several PEs
        write, the count may be short by the records in flight.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return self.count
        try:
            low, step = self.count, 1
            while self._written(descriptor, low + step):
                low, step = low + step, step * 2
            high = low + step  # not written; low is
            while high - low > 1:
                middle = (low + high) // 2
                if self._written(descriptor, middle):
                    low = middle
                else:
                    high = middle
            self.count = low
        finally:
            os.close(descriptor)
        return self.count

    @staticmethod
    def _written(descriptor: int, number: int) -> bool:
        """Is record ``number`` (from 1) there?"""
        offset = HEADER.size + RECORD.size * (number - 1) + _KIND_OFFSET
        data = os.pread(descriptor, _KIND.size, offset)
        return len(data) == _KIND.size and _KIND.unpack(data)[0] != 0


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
