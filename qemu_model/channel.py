# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's channel: bytes to typed frames.  Pure, and safe against anything a guest may write.

A frame is one line of at most 4096 bytes::

    @HDBSS <seq> <crc> <line> <kind> <key>=<value>...\\n

``seq`` counts from 1; ``crc`` is 8 hex digits of zlib.crc32 over
``<seq> <line> <kind> <key>=<value>...``; ``line`` is the program line (from 1;
0 is the agent itself).  Values hold no spaces; free text is percent-encoded.
On a console that the kernel shares, ``@HDBSS `` may stand anywhere in a line
and other text is skipped.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from urllib.parse import unquote

from qemu_model.errors import InfrastructureError
from qemu_model.pages import Ranges, parse_ranges

MARK = b"@HDBSS "
#: Longest frame in bytes, the newline included.
FRAME_MAX = 4096
#: Only the first problems are kept: a guest can make as many as it likes.
PROBLEMS_MAX = 50
_HEAD = re.compile(rb"@HDBSS (\d{1,20}) ([0-9a-f]{8}) (\d{1,9}) ([a-z][a-z-]{0,31})((?: [^ ]+)*)$")
_INTEGER = re.compile(r"-?(?:[0-9]{1,20}|0x[0-9a-fA-F]{1,16})")


class ChannelError(InfrastructureError):
    """The agent's channel cannot be relied on: something is missing or damaged."""


class What(StrEnum):
    """What a set of pages is."""

    REPORTED = "reported"
    CHANGED = "changed"
    CLEARED = "cleared"
    DIFFERS = "differs"


def integer(text: str) -> int:
    """Read a decimal (perhaps negative) or 0x number of at most 64 bits; raises ValueError."""
    if _INTEGER.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a number")
    value = int(text, 0) if "x" in text else int(text)
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"{text} does not fit in 64 bits")
    return value


@dataclass(frozen=True)
class Frame:
    """One frame.  ``line`` is the program line (0: the agent itself)."""

    seq: int
    line: int


@dataclass(frozen=True)
class Hello(Frame):
    """The agent is up; ``pagesize`` in bytes."""

    version: int
    cpus: int
    pagesize: int


@dataclass(frozen=True)
class Begin(Frame):
    """An operation of the program begins."""

    op: str


@dataclass(frozen=True)
class Pages(Frame):
    """A part of a set of pages of a slot; page numbers count from the slot's start."""

    slot: int
    what: What
    ranges: Ranges


@dataclass(frozen=True)
class TextLine(Frame):
    """A line of text, for example of the kernel log."""

    text: str


@dataclass(frozen=True)
class Result(Frame):
    """An operation has ended: ``ret`` and ``errno`` of its system call, further ``fields``."""

    op: str
    ret: int
    errno: int
    fields: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True)
class Fatal(Frame):
    """The agent cannot go on."""

    text: str


@dataclass(frozen=True)
class Bye(Frame):
    """The last frame; ``lines`` of the program were worked off."""

    lines: int


def _typed(seq: int, line: int, kind: str, fields: dict[str, str]) -> Frame:
    """Build the frame of ``kind``; raises KeyError or ValueError."""
    match kind:
        case "hello":
            return Hello(
                seq,
                line,
                integer(fields["version"]),
                integer(fields["cpus"]),
                integer(fields["pagesize"]),
            )
        case "begin":
            return Begin(seq, line, fields["op"])
        case "pages":
            slot, what = integer(fields["slot"]), What(fields["what"])
            return Pages(seq, line, slot, what, parse_ranges(fields["list"]))
        case "line":
            return TextLine(seq, line, unquote(fields["text"]))
        case "result":
            op, ret, errno = (fields.pop(key) for key in ("op", "ret", "errno"))
            rest = MappingProxyType(fields)
            return Result(seq, line, op, integer(ret), integer(errno), rest)
        case "fatal":
            return Fatal(seq, line, unquote(fields["text"]))
        case "bye":
            return Bye(seq, line, integer(fields["lines"]))
    raise ValueError(f"unknown kind {kind}")


def decode(text: bytes) -> Frame:
    """Decode one frame (``@HDBSS ...`` without the newline).

    Raises ChannelError saying what is wrong with it.
    """
    match = _HEAD.match(text)
    if match is None:
        raise ChannelError(f"not a frame: {text[:60]!r}")
    seq, crc, line, kind, rest = match.groups()
    if zlib.crc32(b" ".join((seq, line, kind)) + rest) != int(crc, 16):
        raise ChannelError(f"frame {seq.decode()} has a wrong checksum")
    name = f"frame {seq.decode()} ({kind.decode()})"
    fields: dict[str, str] = {}
    for word in rest.split():
        key, equals, value = word.partition(b"=")
        if not equals or not word.isascii() or key.decode() in fields:
            raise ChannelError(f"{name} has a bad field {word[:40]!r}")
        fields[key.decode()] = value.decode()
    try:
        return _typed(int(seq), int(line), kind.decode(), fields)
    except KeyError as error:
        raise ChannelError(f"{name} has no {error.args[0]}=") from error
    except ValueError as error:
        raise ChannelError(f"{name}: {error}") from error


class Decoder:
    """Takes the channel's bytes as they come and gives frames.

    ``problems`` says what is damaged or missing, at most PROBLEMS_MAX entries.  With
    ``shared`` the stream is a console and text outside of frames is no problem.
    Memory is bounded by one frame plus what the caller keeps.
    """

    def __init__(self, shared: bool = False) -> None:
        self.problems: list[str] = []
        self.finished = False
        """A ``bye`` has been seen."""
        self._shared = shared
        self._buffer = b""
        self._skipping = False
        self._next = 1

    def feed(self, data: bytes) -> list[Frame]:
        """Take ``data`` and return the frames that are complete now."""
        frames: list[Frame] = []
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
                continue
            frame = self._line(line)
            if frame is not None:
                frames.append(frame)
        if len(self._buffer) > 2 * FRAME_MAX:
            if not self._skipping and (not self._shared or MARK in self._buffer):
                self._problem(f"a line longer than {FRAME_MAX} bytes")
            self._skipping = True
            self._buffer = b""
        return frames

    def close(self) -> None:
        """The stream has ended: note an unfinished frame and a missing ``bye``."""
        if self._buffer and (not self._shared or MARK in self._buffer):
            self._problem(f"the channel ends inside a frame: {self._buffer[:60]!r}")
        self._buffer = b""
        if not self.finished:
            self._problem("the agent's bye is missing")

    def _problem(self, text: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)

    def _line(self, line: bytes) -> Frame | None:
        line = line.removesuffix(b"\r")
        # The last mark: the kernel may have cut a frame that the agent then began anew.
        start = line.rfind(MARK)
        if start < 0:
            if line and not self._shared:
                self._problem(f"text that is no frame: {line[:60]!r}")
            return None
        if len(line) - start >= FRAME_MAX:
            self._problem(f"a frame longer than {FRAME_MAX} bytes")
            return None
        try:
            frame = decode(line[start:])
        except ChannelError as error:
            self._problem(str(error))
            return None
        if frame.seq < self._next:
            self._problem(f"frame {frame.seq} comes again or too late")
            return None
        if frame.seq > self._next:
            missing = frame.seq - self._next
            self._problem(f"{missing} frame(s) missing before frame {frame.seq}")
        self._next = frame.seq + 1
        if self.finished:
            self._problem(f"frame {frame.seq} after the bye")
        if isinstance(frame, Bye):
            self.finished = True
        return frame


@dataclass(frozen=True)
class Channel:
    """All that a finished run's channel said, and what is wrong with it."""

    frames: tuple[Frame, ...]
    problems: tuple[str, ...]

    @property
    def bye(self) -> bool:
        """The agent has said that it is done."""
        return any(isinstance(frame, Bye) for frame in self.frames)

    def require_complete(self) -> None:
        """Raise ChannelError with the first problem, if there is one."""
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise ChannelError(f"the agent's channel is damaged: {self.problems[0]}{more}")


def parse(data: bytes, shared: bool = False) -> Channel:
    """Parse the whole of a channel's bytes; never raises."""
    decoder = Decoder(shared)
    frames = decoder.feed(data)
    decoder.close()
    return Channel(tuple(frames), tuple(decoder.problems))
