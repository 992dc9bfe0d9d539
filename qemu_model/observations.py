# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's channel: frames, and the page sets in them.

A frame is one line of at most 4096 bytes::

    @HDBSS <seq> <crc> <line> <kind> <key>=<value>...

``seq`` counts 1, 2, 3..; ``crc`` is zlib's CRC-32, 8 hex digits, over everything but
itself (``<seq> <line> <kind> ...``); ``line`` is the program's line, 0 for the agent
itself.  Values hold no spaces; text is percent-encoded.  Frames are found anywhere in
a line, so that a console which carries other text too can be read as well.

The sender is the agent, but the kernel under test lies between: every byte is
hostile, and nothing here takes more memory than a few times its input.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from qemu_model.errors import UsageError

_FRAME = re.compile(rb"@HDBSS (\d{1,9}) ([0-9a-f]{8}) (\d{1,9}) ([a-z]+)((?: [^\s=]+=[^\s]*)*)")
_RANGE = re.compile(r"^(\d{1,9})(?:-(\d{1,9}))?$")


@dataclass(frozen=True)
class Frame:
    """One frame; values are decoded text."""

    seq: int
    line: int
    kind: str
    values: dict[str, str]

    def number(self, key: str, default: int) -> int:
        """A value as a number, ``default`` where it is missing or none."""
        try:
            return int(self.values.get(key, ""), 0)
        except ValueError:
            return default

    @property
    def text(self) -> str:
        """The values as the agent wrote them."""
        return " ".join(f"{key}={value}" for key, value in self.values.items())


@dataclass(frozen=True)
class Observations:
    """What the agent saw, in order."""

    frames: tuple[Frame, ...] = ()
    problem: str | None = field(default=None)
    """Why the frames are not everything that the agent sent; None when they are."""

    def result(self, line: int) -> Frame | None:
        """The result of a program line."""
        return next((f for f in self.frames if f.line == line and f.kind == "result"), None)


def checksum(body: str) -> str:
    """The CRC of a frame: ``body`` is ``<seq> <line> <kind> ...``."""
    return f"{zlib.crc32(body.encode()):08x}"


def iterate(data: bytes) -> Iterator[Frame | str]:
    """Yield frames, and a sentence for each that is damaged."""
    for match in _FRAME.finditer(data):
        seq, crc, line, kind, rest = match.groups()
        if zlib.crc32(b"%s %s %s%s" % (seq, line, kind, rest)) != int(crc, 16):
            yield f"frame {int(seq)} has a wrong checksum"
            continue
        pairs = (pair.partition(b"=") for pair in rest.split())
        values = {_decode(key): _decode(value) for key, _, value in pairs}
        yield Frame(int(seq), int(line), kind.decode("ascii"), values)


def _decode(raw: bytes) -> str:
    return unquote(raw.decode("ascii", "replace"), errors="replace")


def read_observations(data: bytes) -> Observations:
    """Read a whole channel; ``problem`` says what is missing or damaged, if anything."""
    frames: list[Frame] = []
    problem: str | None = None
    for item in iterate(data):
        if isinstance(item, str):
            problem = problem or item
            continue
        expected = frames[-1].seq + 1 if frames else 1
        if item.seq != expected:
            problem = problem or f"frame {expected} is missing, {item.seq} came instead"
        frames.append(item)
    if not frames:
        problem = problem or "no frame at all"
    elif frames[-1].kind == "fatal":
        problem = problem or f"the agent gave up: {frames[-1].values.get('text', '')}"
    elif frames[-1].kind != "bye":
        problem = problem or f"the agent's farewell is missing after frame {frames[-1].seq}"
    return Observations(tuple(frames), problem)


def parse_pages(text: str, limit: int) -> set[int]:
    """Decode ``0-511,600``, or ``-`` for none, into page numbers below ``limit``.

    UsageError for anything else: a list that names pages outside its slot is not the
    agent's, and must not cost memory.
    """
    pages: set[int] = set()
    if text == "-":
        return pages
    for part in text.split(","):
        match = _RANGE.match(part)
        if match is None:
            raise UsageError(f"agent.log: {part[:40]!r} is no range of pages")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if not first <= last < limit:
            raise UsageError(f"agent.log: pages {part[:40]} are outside a slot of {limit}")
        pages.update(range(first, last + 1))
    return pages
