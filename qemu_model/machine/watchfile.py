# SPDX-License-Identifier: GPL-2.0-or-later
"""The file into which a watcher writes what it has seen (``qemu_model/watchlog.py``)."""

from __future__ import annotations

from pathlib import Path

from qemu_model.errors import InfrastructureError
from qemu_model.machine.cache import file_trouble
from qemu_model.watchlog import other_line


class WatchFile:
    """Lines of one log; all methods raise InfrastructureError if they cannot be written."""

    def __init__(self, path: Path, **head: object) -> None:
        self._path = path
        self._bytes = 0
        self.usable = True
        """Whether anything more can be watched."""
        try:
            self._out = path.open("w", encoding="ascii")
        except OSError as error:
            raise file_trouble("write", path, error) from error
        self.other(**head)

    def write(self, line: str) -> None:
        """Add a line, which has its end."""
        try:
            self._bytes += self._out.write(line)
        except (OSError, ValueError) as error:
            raise InfrastructureError(f"cannot write {self._path}: {error}") from error

    def other(self, **content: object) -> None:
        """Add a line that is no record."""
        self.write(other_line(**content))

    def give_up(self, why: str) -> None:
        """Write down why nothing can be watched from here on."""
        self.usable = False
        self.other(unusable=why)

    def bound(self, limit: int) -> None:
        """Give up beyond so many bytes: a kernel under test may do the same for ever."""
        if self.usable and self._bytes > limit:
            self.give_up(f"{self._path.name} has more than {limit >> 20} MiB")

    def close(self, count: int) -> None:
        """Write the end, after so many records."""
        self.other(end=count)
        self._out.close()
