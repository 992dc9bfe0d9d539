# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's console: read through pexpect, boot stages and deaths recognised."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

import pexpect
from pexpect.fdpexpect import fdspawn

#: A line without an end is cut here (bytes): memory stays bounded whatever a guest prints.
LINE_MAX = 16 * 1024
#: Lines kept for error messages.
LAST_LINES = 25
_TROUBLE_MAX = 100
#: Longest time spent in one ``pump`` while data keeps coming (seconds).
_PUMP_MAX = 0.5

# Escape sequences and control characters do not belong on the user's terminal.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
# die(), __warn(), and what their messages begin with.
_OOPS = re.compile(r"Internal error: |Unable to handle kernel |\bOops\b|kernel BUG at ")
_WARNING = re.compile(r"WARNING: |\bBUG: |INFO: rcu_|INFO: task .* blocked")
_KVM_UP = re.compile(r"kvm \[\d+\]: .*mode initialized successfully")
_KVM_DOWN = re.compile(
    r"kvm \[\d+\]: (HYP mode not available|KVM disabled.*|.*(?:failed|[Ee]rror).*)"
)


class Stage(StrEnum):
    """How far a boot has come, in this order."""

    STARTED = "QEMU started"
    KERNEL = "kernel started"
    KVM = "KVM up"
    INIT = "init started"
    AGENT = "agent up"


_STAGES = (
    (re.compile(r"Booting Linux on physical CPU|\] Linux version "), Stage.KERNEL),
    (_KVM_UP, Stage.KVM),
    (re.compile(r"Run /init as init process"), Stage.INIT),
)


def clean(line: bytes) -> str:
    """Return a console line as text that is safe to print."""
    return _CONTROL.sub("", line.decode(errors="replace")).rstrip()


@dataclass
class BootLog:
    """What the console has said so far, as far as the machine needs to know.

    ``panic`` is the panic's reason; ``trouble`` the first lines of oopses and warnings (at
    most 100); ``reached`` maps each stage to seconds since the start.
    """

    reached: dict[Stage, float] = field(default_factory=dict)
    panic: str | None = None
    oops: str | None = None
    kvm_failure: str | None = None
    trouble: list[str] = field(default_factory=list)
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    def line(self, line: bytes, now: float) -> None:
        """Take one line that came ``now`` seconds after the start."""
        text = clean(line)
        if not text:
            return
        self.last_lines.append(text[:500])
        for pattern, stage in _STAGES:
            if pattern.search(text):
                self.reach(stage, now)
        if match := _PANIC.search(text):
            self.panic = self.panic or match[1][:300] or "no reason given"
            return
        if self.kvm_failure is None and (match := _KVM_DOWN.search(text)):
            self.kvm_failure = match[1][:300]
        is_oops = _OOPS.search(text) is not None
        if is_oops and self.oops is None:
            self.oops = text[:300]
        if (is_oops or _WARNING.search(text)) and len(self.trouble) < _TROUBLE_MAX:
            self.trouble.append(text[:300])

    def reach(self, stage: Stage, now: float) -> None:
        """Note that ``stage`` was reached (the first time counts)."""
        self.reached.setdefault(stage, now)

    @property
    def stage(self) -> Stage:
        """The last stage that was reached."""
        return [s for s in Stage if s in self.reached or s is Stage.STARTED][-1]


class Console:
    """Reads lines from a file descriptor as they come.

    ``on_bytes`` gets everything that was read.  ``count`` is the number of bytes so far,
    ``ended`` is set when the other side has closed.
    """

    def __init__(self, descriptor: int, log: BootLog, on_bytes: Callable[[bytes], None]) -> None:
        self.log = log
        self.count = 0
        self.ended = False
        self._start = time.monotonic()
        self._on_bytes = on_bytes
        self._spawn = fdspawn(descriptor, timeout=None, maxread=LINE_MAX)
        self._patterns = self._spawn.compile_pattern_list(
            # The second alternative cuts a line that does not end.  Anchored and possessive,
            # or a megabyte without a newline would be searched from each of its bytes.
            [rb"\A(?:[^\n]*+\n|[^\n]{%d})" % LINE_MAX, pexpect.TIMEOUT, pexpect.EOF]
        )

    def pump(self, timeout: float) -> None:
        """Take what is there; wait at most ``timeout`` seconds for the first line."""
        end = time.monotonic() + _PUMP_MAX
        while not self.ended and time.monotonic() < end:
            try:
                found = self._spawn.expect_list(self._patterns, timeout=timeout)
            except OSError:  # the other side was killed with unread bytes
                found = 2
            if found == 1:
                return
            # At the end of the stream what is left of a line is in ``before``.
            line = self._spawn.after if found == 0 else self._spawn.before
            if found == 2:
                self.ended = True
            if isinstance(line, bytes):
                self._take(line)
            timeout = 0.0

    def drain(self, limit: float) -> None:
        """Take everything up to the end of the stream; at most ``limit`` seconds."""
        end = time.monotonic() + limit
        while not self.ended and time.monotonic() < end:
            self.pump(0.1)

    def _take(self, line: bytes) -> None:
        self.count += len(line)
        self._on_bytes(line)
        self.log.line(line, time.monotonic() - self._start)
