# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees while something takes long: a live line on a terminal, plain lines elsewhere.

Both twins take the same two calls.  ``line`` is for things worth keeping,
``status`` for things that are only true right now.
"""

from __future__ import annotations

import shutil
import time
from typing import Protocol, TextIO

_SPINNER = "|/-\\"
#: Without a terminal a status is printed at most this often (seconds).
PLAIN_INTERVAL = 30.0


class Progress(Protocol):
    """Where long operations report to."""

    def line(self, text: str) -> None:
        """Print ``text`` as a line that stays."""

    def status(self, text: str) -> None:
        """Say what is happening now; may be dropped or overwritten."""

    def done(self) -> None:
        """Remove a live line, if there is one."""


class PlainProgress:
    """Lines only, for pipes, log files and CI.

    A status is printed when it is the first one or ``interval`` seconds
    after the last, so that a silent log never means a hang.
    """

    def __init__(self, stream: TextIO, interval: float = PLAIN_INTERVAL) -> None:
        self._stream = stream
        self._interval = interval
        self._last = time.monotonic()

    def line(self, text: str) -> None:
        """Print one line."""
        self._last = time.monotonic()
        print(text, file=self._stream, flush=True)

    def status(self, text: str) -> None:
        """Print ``text`` if nothing was printed for ``interval`` seconds."""
        if time.monotonic() - self._last >= self._interval:
            self.line(text)

    def done(self) -> None:
        """Nothing to remove."""


class TerminalProgress:
    """One live line with a spinner below the lines that stay."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._turn = 0
        self._live = False

    def line(self, text: str) -> None:
        """Print one line above the live one."""
        self.done()
        print(text, file=self._stream, flush=True)

    def status(self, text: str) -> None:
        """Replace the live line."""
        width = shutil.get_terminal_size().columns
        self._turn = (self._turn + 1) % len(_SPINNER)
        shown = f"{_SPINNER[self._turn]} {text}"[: max(width - 1, 10)]
        self._stream.write(f"\r\x1b[K{shown}")
        self._stream.flush()
        self._live = True

    def done(self) -> None:
        """Erase the live line."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._live = False


class SilentProgress:
    """Says nothing: for callers with a display of their own, and for tests."""

    def line(self, text: str) -> None:
        """Drop the line."""

    def status(self, text: str) -> None:
        """Drop the status."""

    def done(self) -> None:
        """Nothing to remove."""


def progress_for(stream: TextIO) -> Progress:
    """Return the twin that fits ``stream``."""
    return TerminalProgress(stream) if stream.isatty() else PlainProgress(stream)
