# SPDX-License-Identifier: GPL-2.0-or-later
"""A finished run, read back from its directory: all that a verdict needs.

======================= =====================================================
run.json                what was run, with which versions, and how to repeat it
program.txt             the agent's program with its expectations
agent.log               the bytes of the agent's channel
trace.bin               what the PEs did; absent where they had no FEAT_HDBSS
flushes.jsonl           what the kernel's dirty bitmaps held at each flush; absent
                        where they could not be watched: run.json says why
buffers.jsonl           whom the memory of the buffers belonged to; absent like that
console.log             the kernel's log
======================= =====================================================
"""

import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu_model.bounded import open_bounded
from qemu_model.buffers import NO_BUFFERS, BufferLog, read_buffers
from qemu_model.channel import Begin, Channel, Result
from qemu_model.channel import parse as parse_channel
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.flushes import NO_FLUSHES, FlushLog, read_flushes
from qemu_model.model.choices import BEST, Choices, choose
from qemu_model.model.injection import AT_APPENDS, Injection
from qemu_model.model.injection import parse as parse_injection
from qemu_model.program import Program, parse
from qemu_model.trace import Kind, Trace, describe, read_trace

_PAGE_MASK = ~0xFFF
_SHOWN_RECORDS = 6
_FILE_MAX = 64 << 20
"""Bytes of a text file: a machine with so much to say is stopped long before."""


@dataclass(frozen=True)
class About:
    """What run.json says: enough to name the run and to repeat it."""

    scenario: str
    mode: str
    seed: int
    kernel: str
    command: str
    seconds: float
    feature: bool
    """Whether the PEs had FEAT_HDBSS, so that there is a trace."""
    shared_console: bool
    """Whether the agent's channel was the console."""
    unwatched: str = ""
    """Why there is no flushes.jsonl; empty if there is one."""
    no_buffers: str = ""
    """Why there is no buffers.jsonl; empty if there is one."""
    choices: Choices = BEST
    """What the PEs chose where the architecture leaves it open."""
    injections: tuple[Injection, ...] = ()
    """What was to go wrong."""
    foreign: bool = False
    """Whether some of that was not the scenario's own wish."""


@dataclass(frozen=True)
class Run:
    """Everything that was seen in one run of one scenario."""

    about: About
    program: Program
    observations: Channel
    trace: Trace | None
    """None where the machine had no interceptor."""
    console: str
    flushes: FlushLog = NO_FLUSHES
    buffers: BufferLog = NO_BUFFERS

    def line(self, number: int) -> str:
        """The program's line, without its comment; empty beyond its end."""
        lines = self.program.text.split("\n")
        if not 0 < number <= len(lines):
            return ""
        return lines[number - 1].partition("#")[0].strip()

    def records_about(self, ipa: int) -> tuple[str, ...]:
        """The last trace records that name the page at ``ipa``, in words."""
        if self.trace is None:
            return ()
        page = ipa & _PAGE_MASK
        last: deque[str] = deque(maxlen=_SHOWN_RECORDS)
        for record in self.trace:
            _, kind, _, _, a, b, c, *_ = record
            if (
                (kind in (Kind.APPEND, Kind.REFUSE, Kind.LOST) and a & _PAGE_MASK == page)
                or (kind == Kind.INJECT and a in AT_APPENDS and b & _PAGE_MASK == page)
                or (kind == Kind.EXIT and c << 8 & _PAGE_MASK == page)
            ):
                last.append(describe(record))
        return tuple(last)


def load(directory: Path) -> Run:
    """Read a run directory.

    UsageError says which file is missing or wrong, InfrastructureError why the run has no
    verdict: its machine was lost, or it is still running.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such run directory; `hdbss run --keep DIR` makes them")
    about = _about(directory / "run.json")
    trace_path = directory / "trace.bin"
    if about.feature and not trace_path.exists():
        raise UsageError(f"{trace_path}: missing; the run directory is incomplete")
    program = parse(_text(directory / "program.txt"))
    observations = parse_channel(_bytes(directory / "agent.log"), about.shared_console)
    _same_program(directory, program, observations)
    return Run(
        about=about,
        program=program,
        observations=observations,
        trace=read_trace(trace_path) if about.feature else None,
        console=_text(directory / "console.log"),
        flushes=_flushes(about, directory / "flushes.jsonl"),
        buffers=_buffers(about, directory / "buffers.jsonl"),
    )


def _same_program(directory: Path, program: Program, observations: Channel) -> None:
    """UsageError if the agent tells of another program: its results would be blamed on a kernel."""
    operations = {operation.line: operation.name for operation in program}
    for frame in observations.frames:
        if not isinstance(frame, Begin | Result) or frame.op == "-":  # a line it cannot read
            continue
        if operations.get(frame.line) != frame.op:
            raise UsageError(
                f"{directory}: line {frame.line} of agent.log is {frame.op!r}, of program.txt "
                f"{operations.get(frame.line, 'none')!r}; these are files of two runs"
            )


def _flushes(about: About, path: Path) -> FlushLog:
    return FlushLog(absent=about.unwatched) if about.unwatched else read_flushes(path)


def _buffers(about: About, path: Path) -> BufferLog:
    return BufferLog(absent=about.no_buffers) if about.no_buffers else read_buffers(path)


def _unwatched(record: dict[str, Any], what: str) -> str:
    """Why nobody watched the flushes or the buffers; runs of an older hdbss do not say."""
    said = record.get(what, {"watched": False, "why": "the run is of an older hdbss"})
    return "" if said["watched"] is True else str(said["why"]) or "unknown"


def _about(path: Path) -> About:
    try:
        record = json.loads(_text(path))
        end = record["end"]
        if end["how"] != "complete":
            raise InfrastructureError(f"{path}: the run is not whole: {end['how']}, {end['why']}")
        return About(
            scenario=str(record["scenario"]),
            mode=str(record["machine"]["mode"]),
            seed=int(record["machine"]["seed"]),
            kernel=str(record["kernel"]["description"]),
            command=str(record["command"]),
            seconds=float(end["seconds"]),
            feature=record["feature"] is not False,
            shared_console=record["shared_console"] is True,
            unwatched=_unwatched(record, "flushes"),
            no_buffers=_unwatched(record, "buffers"),
            choices=choose(str(record.get("choices", ""))),  # older runs had no others
            injections=tuple(map(parse_injection, record.get("injections", ()))),
            foreign=len(record.get("injections", ())) > int(record.get("own_injections", 0)),
        )
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise UsageError(f"{path}: {error!r}; not a finished run of this bench") from error


def _bytes(path: Path) -> bytes:
    try:
        with open_bounded(path, _FILE_MAX) as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; the run directory is incomplete") from error


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")
