# SPDX-License-Identifier: GPL-2.0-or-later
"""buffers.jsonl: what the kernel's struct page said of the HDBSS buffers, and when.

This module is the definition of format version 1: JSON, an object on each line.  The
first line is ``{"version": 1, "page_shift": 12}``.  Each further line is one of

``{"look": N, ...}``
    Look number N, from 1, at the buffer of a PE that stood still.

    ======== ====================================================================
    why      one of ``Why``, below
    pe       QEMU's vCPU index
    seq      the PE's first trace record after the look is its first one from
             ``seq`` on
    place    where the PE was: ``symbol+0x10``, or the bare address
    hdbssbr  HDBSSBR_EL2, the buffer that was looked at
    first    the first page frame that the buffer touches
    frames   their number
    runs     neighbouring frames whose struct page say the same, in their order:
             [frames, _refcount, page_type, whether page.mapping is set, first frame
             of the compound page that they are tails of, or -1]
    owner    the reference count that holds the first frame, see ``PageLook``
    free     frames in blocks of the buddy allocator, as in the agent's channel
             (``-`` is none); null where vmlinux does not tell how to know them
    zero     the frame of empty_zero_page
    error    why nothing could be seen: then runs, owner, free and zero mean
             nothing; "" otherwise
    ======== ====================================================================

``{"late": N}``
    The PE went on before look N was over: its line proves nothing.
``{"unusable": "why"}``
    Nothing could be looked at from here on.
``{"end": N}``
    The last line of a run that came to its end, after N looks.

A frame is a physical address >> page_shift.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from qemu_model import watchlog
from qemu_model.arch.registers import ENTRY_BYTES, hdbss_base, hdbss_capacity, sz_reserved
from qemu_model.pages import Ranges, format_ranges, parse_ranges

VERSION = 1


class Why(StrEnum):
    """The moment of a look."""

    ANNOUNCED = "announced"
    """Just after the MSR of HDBSSBR_EL2 with this BADDR, which is not 0."""
    APPENDED = "appended"
    """Just after the PE's first entry since it entered its guest."""
    DRAIN = "drain"
    """Just before an MRS of HDBSSPROD_EL2 with INDEX not 0."""
    FLUSH = "flush"
    """Just before the MSR of HDBSSPROD_EL2 that makes INDEX 0."""
    WITHDRAWN = "withdrawn"
    """Just before the MSR of VTCR_EL2 or HDBSSBR_EL2 with which the PE has it no longer, if it
    has entered a guest with it last."""
    END = "end"
    """The machine has ended, and the PE still had it."""


@dataclass(frozen=True)
class PageRun:
    """Neighbouring frames whose struct page say the same.

    ``head`` is the first frame of the compound page that they are tails of, -1 where they
    are none; ``mapped`` is whether page.mapping is set: pages of files and of processes.
    """

    count: int
    refcount: int
    page_type: int
    mapped: bool
    head: int


@dataclass(frozen=True)
class BufferLook:
    """One look; see the table in the module's docstring."""

    number: int
    why: Why
    pe: int
    seq: int
    place: str
    hdbssbr: int
    first: int
    frames: int
    runs: tuple[PageRun, ...] = ()
    owner: int = 0
    free: Ranges | None = None
    zero: int = -1
    error: str = ""


@dataclass(frozen=True)
class BufferLog:
    """All looks of a run; ``absent`` says why there is nothing, or not everything."""

    looks: tuple[BufferLook, ...] = ()
    late: frozenset[int] = frozenset()
    page_shift: int = 12
    absent: str = ""
    cut: bool = False
    """Whether the line ``end`` is missing."""


NO_BUFFERS = BufferLog(absent="nobody looked at the buffers")


def look_line(look: BufferLook) -> str:
    """The line of a look, with its end of line."""
    content: dict[str, Any] = {spec.name: getattr(look, spec.name) for spec in fields(BufferLook)}
    content["look"] = content.pop("number")
    content["runs"] = [
        [run.count, run.refcount, run.page_type, run.mapped, run.head] for run in look.runs
    ]
    content["free"] = None if look.free is None else format_ranges(look.free)
    return json.dumps(content) + "\n"


def read_buffers(path: Path) -> BufferLog:
    """Read a buffers.jsonl; raises UsageError when it is missing, foreign or damaged."""
    return watchlog.read(path, "buffers", _parse)


def frames_of(hdbssbr: int, page_shift: int) -> tuple[int, int]:
    """The first page frame that the buffer of an HDBSSBR_EL2 touches, and their number.

    Of a buffer with a reserved SZ the size is not known, and the number 0.
    """
    base = hdbss_base(hdbssbr)
    first = base >> page_shift
    if sz_reserved(hdbssbr):
        return first, 0
    end = base + ENTRY_BYTES * hdbss_capacity(hdbssbr)
    return first, (end - 1 >> page_shift) + 1 - first


def _parse(head: watchlog.Line, lines: Iterator[watchlog.Line]) -> BufferLog:
    shift = watchlog.page_shift(head)
    log = watchlog.take_apart(head, lines, VERSION, "look", lambda line: _look(line, shift))
    return BufferLog(log.records, log.late, shift, log.absent, log.cut)


def _look(line: dict[str, Any], page_shift: int) -> BufferLook:
    look = BufferLook(
        number=int(line["look"]),
        why=Why(line["why"]),
        pe=int(line["pe"]),
        seq=int(line["seq"]),
        place=str(line["place"]),
        hdbssbr=int(line["hdbssbr"]),
        first=int(line["first"]),
        frames=int(line["frames"]),
        runs=tuple(
            PageRun(int(count), int(refcount), int(kind), bool(mapped), int(head))
            for count, refcount, kind, mapped, head in line["runs"]
        ),
        owner=int(line["owner"]),
        free=None if line["free"] is None else parse_ranges(line["free"]),
        zero=int(line["zero"]),
        error=str(line["error"]),
    )
    if (look.first, look.frames) != frames_of(look.hdbssbr, page_shift):
        raise ValueError(f"look {look.number}: the frames are not those of HDBSSBR_EL2")
    if look.error:
        return look
    if not look.frames or any(run.count <= 0 for run in look.runs):
        raise ValueError(f"look {look.number}: a run of no frames")
    if sum(run.count for run in look.runs) != look.frames:
        raise ValueError(f"look {look.number}: the runs are not {look.frames} frames")
    if (
        look.free
        and not look.first <= look.free[0][0] <= look.free[-1][1] < look.first + look.frames
    ):
        raise ValueError(f"look {look.number}: free frames that are none of the buffer's")
    return look
