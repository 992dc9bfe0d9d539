# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs made by hand: a program, what the agent says of it, and a trace."""

import zlib
from collections.abc import Mapping, Sequence

from qemu_model.arch.registers import SysReg
from qemu_model.channel import parse as parse_channel
from qemu_model.program import parse
from qemu_model.run import About, Run
from qemu_model.trace import HEADER, MAGIC, RECORD, VERSION, Header, Kind, Trace

RAM = Header(0x4000_0000, 0x2000_0000, 2, "plugin")
GPA = 0x4000_0000
BUFFER = 0x4800_0000
HCR = 1
VTCR = 0x80003559 | 1 << 21 | 1 << 22 | 1 << 45
"""4 KB granule, 40 bits of IPA, HA, HD and HDBSS."""
VTCR_OFF = VTCR & ~(1 << 22 | 1 << 45)
BR, PROD = int(SysReg.HDBSSBR_EL2), int(SysReg.HDBSSPROD_EL2)

Event = tuple[Kind, int, tuple[int, ...], int]


def event(kind: Kind, *fields: int, pe: int = 0, flags: int = 0) -> Event:
    """A trace record without its number."""
    return (kind, pe, fields, flags)


def mark(line: int, phase: int = 0) -> Event:
    return event(Kind.MARK, line << 1 | phase)


def append(page: int, index: int, *, level: int = 3, pe: int = 0) -> Event:
    """An append for a page of a slot at GPA, into the buffer at BUFFER."""
    ipa = GPA + page * 4096
    size = 4096 << (3 - level) * 9
    entry = ipa & -size | (level & 7) << 1 | 1
    clean = 0x0008_0000_5000_0000 | 0x743
    fields = (ipa, entry, BUFFER + 8 * index, 0x4700_0000 + 8 * page, clean, clean | 0x80)
    return event(Kind.APPEND, *fields, pe=pe, flags=index)


def entry(br: int = BUFFER, prod: int = 0, vtcr: int = VTCR, pe: int = 0) -> Event:
    return event(Kind.ENTRY, br, prod, vtcr, 0x4600_0000, HCR, 0x1000_0000, pe=pe)


def leave(prod: int = 0, pe: int = 0) -> Event:
    return event(Kind.EXIT, 0x93C0_8047, 0, 0, prod, 0x400, 0x1000_0000, pe=pe)


def make_trace(events: Sequence[Event], ended: bool = True, end: int = 0) -> Trace:
    """A trace of these records, numbered, with or without its END."""
    all_events = [event(Kind.BEGIN, 1), *events]
    if ended:
        all_events.append(event(Kind.END, end, len(all_events) + 1))
    data = HEADER.pack(
        MAGIC, VERSION, RECORD.size, RAM.ram_base, RAM.ram_size, RAM.nr_pes, 0, b"plugin"
    )
    for seq, (kind, pe, fields, flags) in enumerate(all_events, 1):
        data += RECORD.pack(seq, kind, pe, flags, *(*fields, 0, 0, 0, 0, 0, 0)[:6])
    return Trace(RAM, data, len(all_events))


def channel_bytes(program: str, says: Mapping[int, Sequence[str]] | None = None) -> bytes:
    """What the agent sends when every operation succeeds unless ``says`` has a result.

    ``says`` maps a line to frames without their head, e.g. ``pages slot=0 what=changed
    list=3``; results may leave out ``op=``; ``cut`` is where the agent stops.
    """
    bodies = [(0, "hello version=1 cpus=2 pagesize=4096")]
    for operation in parse(program):
        frames = list((says or {}).get(operation.line, ()))
        if "cut" in frames:
            break
        if not any(frame.startswith("result") for frame in frames):
            frames.append("result ret=0 errno=0 exit=door")
        for frame in frames:
            text = frame.replace("result", f"result op={operation.name}", 1)
            bodies.append((operation.line, text))
    bodies.append((0, f"bye lines={len(bodies)}"))
    channel = b""
    for seq, (line, rest) in enumerate(bodies, 1):
        crc = zlib.crc32(f"{seq} {line} {rest}".encode())
        channel += f"@HDBSS {seq} {crc:08x} {line} {rest}\n".encode()
    return channel


def make_run(
    program: str,
    says: Mapping[int, Sequence[str]] | None = None,
    trace: Sequence[Event] | Trace | None = (),
    console: str = "",
) -> Run:
    """A run of ``program`` with these observations, records and words on the console."""
    made = trace if isinstance(trace, Trace) or trace is None else make_trace(trace)
    about = About("by-hand", "parallel", 1, "none", "", 1.0, made is not None, False)
    channel = parse_channel(channel_bytes(program, says))
    return Run(about, parse(program), channel, made, console)
