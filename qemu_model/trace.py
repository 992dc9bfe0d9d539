# SPDX-License-Identifier: GPL-2.0-or-later
"""The trace: the ordered record of what the PEs did, whoever intercepted it.

This module is the definition of format version 1.  Everything is little endian.

Header, 64 bytes::

    offset size  field
         0    8  magic "HDBSSTRC"
         8    4  version, 1
        12    4  record size in bytes, 64
        16    8  physical address at which the machine's RAM starts
        24    8  size of that RAM in bytes
        32    4  number of PEs
        36    4  zero
        40    8  writer, ASCII, padded with NUL ("plugin", "gdbstub")
        48   16  zero

Records of 64 bytes follow, ``<QHHI6Q``: seq, kind, pe, flags, a, b, c, d, e, f.
``seq`` counts 1, 2, 3.. over all PEs and is the order in which things happened;
record ``seq`` lies at ``64 * seq``.  ``pe`` is QEMU's vCPU index.  Fields that a
kind does not name are zero.  A writer publishes ``kind`` last, so the first
record whose kind is 0 is where a writer that was killed had stopped.

======== ============================================================================
kind     fields
======== ============================================================================
BEGIN    a: version of the writer (1)
RESET    the PE left reset: a HDBSSBR_EL2, b HDBSSPROD_EL2, c VTCR_EL2, as software
         would read them
WRITE    MSR at EL2: a system register (Linux ``sys_reg()`` encoding), b value written,
         c value that the register then holds, d PC
READ     MRS at EL2: a system register, b value delivered, d PC
ENTRY    ERET into EL1&0 with HCR_EL2.{VM,TGE} = {1,0}: a HDBSSBR_EL2, b HDBSSPROD_EL2,
         c VTCR_EL2 as written, d VTTBR_EL2, e HCR_EL2, f ELR_EL2
EXIT     exception from there to EL2: a ESR_EL2 as delivered, b FAR_EL2, c HPFAR_EL2,
         d HDBSSPROD_EL2, e offset of the vector (0x400..0x780), f ELR_EL2
APPEND   an entry was appended: a IPA of the access (4 KB granule), b the entry, c PA of
         its slot, d PA of the stage 2 descriptor, e descriptor before, f after;
         flags[18:0] INDEX before, flags[24] the descriptor's compare-and-swap lost
REFUSE   an access that needed a dirty update was refused: a IPA, b ESR_EL2 delivered,
         c HDBSSPROD_EL2, d PA of the descriptor, e the descriptor, f HDBSSBR_EL2; the
         EXIT of the same abort is the PE's next record
ANOMALY  what a broken or hostile kernel asked for and cannot have: a ``Anomaly``,
         b.. as said there
INJECT   what ``model.injection`` lets happen next: a ``What``, b IPA (of appends and
         refusals), c number of the injection, d HDBSSPROD_EL2 after it, e K of late=K,
         f PA of the descriptor; flags[0] reported precisely, flags[1] the descriptor is
         dirtied; the EXIT of a precise report follows, after LOST if there is one
END      a 0: clean exit, 1: record limit reached, 2: the file could not grow (no space),
         and what happened since is not recorded; b number of records, this one included
MARK     the agent's marker instruction: a = program line << 1 | phase (0 the operation
         begins, 1 it has ended)
BARRIER  where entries become visible late (``model.choices.Visibility.DSB``): a 0: a DSB,
         b entries that it made observable; a 1: a context synchronization event at EL2
         after which reads of HDBSSPROD_EL2 show something else; c what they show from
         now on, d PC.  Guest entries and exits do the same without a record of their own
LOST     a dirty update whose entry was lost: a IPA, b PA of the descriptor, c descriptor
         before, d after
LATE     a late HDBSSPROD_EL2.FSC was set: a the register after it
TLBI     where VTCR_EL2 is cached (``model.choices.Caching.LAZY``): a TLBI of all stage 2
         translations, a 0: of the VMID b, 1: of all; c 1: on all PEs, 0: on this one; d PC
======== ============================================================================
"""

import mmap
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from qemu_model.arch.registers import SysReg
from qemu_model.bounded import open_bounded
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.model.injection import What

MAGIC = b"HDBSSTRC"
VERSION = 1
HEADER = struct.Struct("<8sIIQQII8s16x")
RECORD = struct.Struct("<QHHI6Q")
_KIND_AT = 8
RECORDS_MAX = 16 << 20
"""Records that the plugin writes at most, unless it is told another limit."""
_GROWTH = 1 << 20
"""A file that its writer has not closed is longer than its records by less than this."""

END_CLEAN, END_LIMIT, END_NO_SPACE = 0, 1, 2
"""END.a: everything was recorded; the limit of records was reached; the file could not grow."""

FLAG_INDEX = 0x7FFFF
"""APPEND: INDEX before the append, flags[18:0]."""
BARRIER_DSB, BARRIER_CONTEXT = 0, 1
"""BARRIER.a: a DSB for loads and stores; a context synchronization event."""

FLAG_PRECISE, FLAG_DIRTY = 1 << 0, 1 << 1
"""INJECT: a fault is reported by an abort of its own; its page becomes dirty."""
FLAG_CAS_LOST = 1 << 24
"""APPEND: the descriptor's compare-and-swap lost, the walk was repeated (choice C9)."""

RawRecord = tuple[int, int, int, int, int, int, int, int, int, int]
"""(seq, kind, pe, flags, a, b, c, d, e, f)"""


class Kind(IntEnum):
    """What a record says; see the table in the module's docstring."""

    NONE = 0
    BEGIN = 1
    RESET = 2
    WRITE = 3
    READ = 4
    ENTRY = 5
    EXIT = 6
    APPEND = 7
    REFUSE = 8
    ANOMALY = 9
    INJECT = 10
    END = 11
    MARK = 12
    BARRIER = 13
    LOST = 14
    LATE = 15
    TLBI = 16


class Anomaly(IntEnum):
    """Reasons of ANOMALY records, with the detail that ``b`` carries."""

    TABLE_OUTSIDE_RAM = 1
    """b: PA of the descriptor"""
    WALK_UNSUPPORTED = 2
    """b: VTCR_EL2 whose T0SZ, SL0 or TG0 is none of the architecture's"""
    BUFFER_OUTSIDE_RAM = 3
    """b: PA of the slot; the PE goes on as after an External abort in FSC form"""
    RESERVED_SZ = 4
    """b: HDBSSBR_EL2; the PE goes on as after an External abort in FSC form"""
    WALK_DISAGREES = 5
    """b: IPA, c: descriptor; QEMU faulted where our walk finds no reason"""
    RETRY_LIMIT = 6
    """b: IPA; the descriptor's compare-and-swap lost too often"""
    UNKNOWN_PE = 8
    """b: TPIDR_EL2 that belongs to no known PE"""
    REGISTER_UNREADABLE = 9
    """QEMU did not deliver a register"""


@dataclass(frozen=True)
class Header:
    """The trace's header; addresses and sizes in bytes."""

    ram_base: int
    ram_size: int
    nr_pes: int
    writer: str


@dataclass(frozen=True)
class Trace:
    """A finished trace; iterating it yields its records anew each time."""

    header: Header
    data: bytes
    count: int
    """Number of records."""

    def __iter__(self) -> Iterator[RawRecord]:
        return iterate(self.data)

    def of(self, *kinds: Kind) -> Iterator[RawRecord]:
        """Yield the records of some kinds; the others are not even decoded."""
        if not kinds:
            return
        low = self.data[
            HEADER.size + _KIND_AT : HEADER.size + self.count * RECORD.size : RECORD.size
        ]
        for found in re.finditer(b"[%b]" % re.escape(bytes(kinds)), low):
            record = RECORD.unpack_from(self.data, HEADER.size + found.start() * RECORD.size)
            if record[1] in kinds:  # a kind has a second byte
                yield record

    def record(self, seq: int) -> RawRecord:
        """The record of that number, from 1 to ``count``."""
        found: RawRecord = RECORD.unpack_from(self.data, HEADER.size + (seq - 1) * RECORD.size)
        return found

    @property
    def end(self) -> int | None:
        """``a`` of the END record (``END_CLEAN``...); None when the writer was killed."""
        if not self.count:
            return None
        last = self.record(self.count)
        return last[4] if last[1] == Kind.END else None


def iterate(data: bytes | mmap.mmap | memoryview) -> Iterator[RawRecord]:
    """Yield the records of a whole trace, header included, up to the first unwritten one.

    Raises UsageError when the sequence numbers do not count up by one.
    """
    usable = len(data) - (len(data) - HEADER.size) % RECORD.size
    with memoryview(data)[HEADER.size : usable] as body:
        expected = 1
        for record in RECORD.iter_unpack(body):
            if record[1] == Kind.NONE:
                return
            if record[0] != expected:
                raise UsageError(
                    f"trace: record {expected} has sequence number {record[0]}; "
                    "the file is damaged, run the scenario again"
                )
            expected += 1
            yield record


def read_header(data: bytes | mmap.mmap) -> Header:
    """Decode and check the header; raises UsageError for anything that is no trace."""
    if len(data) < HEADER.size:
        raise UsageError(f"trace: {len(data)} bytes are too few for a header; not a trace")
    magic, version, size, base, ram, pes, _, writer = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise UsageError("trace: the magic number is missing; not a trace of this bench")
    if (version, size) != (VERSION, RECORD.size):
        raise UsageError(
            f"trace: version {version} with records of {size} bytes; this hdbss reads "
            f"version {VERSION} with {RECORD.size}"
        )
    return Header(base, ram, pes, writer.rstrip(b"\0").decode("ascii", "replace"))


def read_trace(path: Path) -> Trace:
    """Read a trace file; raises UsageError when it is missing, foreign, damaged or too large."""
    try:
        with open_bounded(path, HEADER.size + RECORDS_MAX * RECORD.size + _GROWTH) as file:
            data = file.read()
    except OSError as error:
        raise UsageError(f"trace: {path}: {error.strerror}") from error
    header = read_header(data)
    count = 0
    for _ in iterate(data):
        count += 1
    return Trace(header, data, count)


_FIELDS: dict[int, tuple[str, ...]] = {
    Kind.BEGIN: ("version",),
    Kind.RESET: ("HDBSSBR", "HDBSSPROD", "VTCR"),
    Kind.WRITE: ("", "value", "holds", "pc"),
    Kind.READ: ("", "value", "", "pc"),
    Kind.ENTRY: ("HDBSSBR", "HDBSSPROD", "VTCR", "VTTBR", "HCR", "ELR"),
    Kind.EXIT: ("ESR", "FAR", "HPFAR", "HDBSSPROD", "vector", "ELR"),
    Kind.APPEND: ("ipa", "entry", "slot", "descriptor", "before", "after"),
    Kind.REFUSE: ("ipa", "ESR", "HDBSSPROD", "descriptor", "value", "HDBSSBR"),
    Kind.ANOMALY: ("", "b", "c", "d", "e", "f"),
    Kind.END: ("reason", "records"),
    Kind.BARRIER: ("", "entries", "HDBSSPROD", "pc"),
    Kind.INJECT: ("", "ipa", "number", "HDBSSPROD", "late", "descriptor"),
    Kind.LOST: ("ipa", "descriptor", "before", "after"),
    Kind.LATE: ("HDBSSPROD",),
    Kind.TLBI: ("all", "vmid", "broadcast", "pc"),
}


def describe(record: RawRecord) -> str:
    """A record in words, on one line; any numbers are good enough for it."""
    seq, kind, pe, flags, *values = record
    name = Kind(kind).name if kind in Kind.__members__.values() else f"kind {kind}"
    text = f"#{seq} PE {pe} {name}"
    if kind in (Kind.WRITE, Kind.READ):
        known = values[0] in SysReg.__members__.values()
        text += f" {SysReg(values[0]).name if known else hex(values[0])}"
    elif kind == Kind.ANOMALY:
        known = values[0] in Anomaly.__members__.values()
        text += f" {Anomaly(values[0]).name if known else values[0]}"
    elif kind == Kind.BARRIER:
        text += " context synchronized" if values[0] == BARRIER_CONTEXT else " DSB"
    elif kind == Kind.INJECT:
        known = values[0] in What.__members__.values()
        text += f" {What(values[0]).word if known else values[0]}"
        text += " precise" if flags & FLAG_PRECISE else ""
        text += " dirty" if flags & FLAG_DIRTY else ""
    elif kind == Kind.MARK:
        text += f" line {values[0] >> 1} {'ends' if values[0] & 1 else 'begins'}"
    elif kind == Kind.APPEND:
        text += f" INDEX={flags & FLAG_INDEX}" + (" CAS lost" if flags & FLAG_CAS_LOST else "")
    for label, value in zip(_FIELDS.get(kind, ()), values, strict=False):
        if label:
            text += f" {label}={value:#x}"
    return text


def count_records(path: Path) -> int:
    """Number of records that a live or finished trace holds by now; 0 without a file.

    A cheap sign of progress: one binary search over the published kinds, because the file is
    longer than what is in it.  While several PEs write, it may miss the records in flight.
    """
    try:
        with path.open("rb", buffering=0) as file:
            low, high = 0, max(0, (path.stat().st_size - HEADER.size) // RECORD.size)
            while low < high:
                middle = (low + high) // 2
                file.seek(HEADER.size + middle * RECORD.size + 8)
                if file.read(2) in (b"", b"\0\0"):
                    high = middle
                else:
                    low = middle + 1
            return low
    except OSError:
        return 0


class TraceWriter:
    """Writes a trace from Python: what a gdbstub interceptor and the tests need.

    Raises InfrastructureError when the file cannot be written.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self._path = path
        try:
            self._file: BinaryIO = path.open("wb")
            self._file.write(
                HEADER.pack(
                    MAGIC, VERSION, RECORD.size, header.ram_base, header.ram_size, header.nr_pes, 0,
                    header.writer.encode("ascii"),
                )
            )  # fmt: skip
        except OSError as error:
            raise self._trouble(error) from error
        self.count = 0
        self.observer: Callable[[RawRecord], None] | None = None
        """Gets each record as it is written."""

    def _trouble(self, error: OSError) -> InfrastructureError:
        return InfrastructureError(f"cannot write the trace {self._path}: {error.strerror}")

    def write(self, kind: Kind, pe: int, fields: Iterable[int] = (), flags: int = 0) -> None:
        """Append one record; missing fields are zero."""
        self.count += 1
        a, b, c, d, e, f = (*fields, 0, 0, 0, 0, 0, 0)[:6]
        record = (self.count, int(kind), pe, flags, a, b, c, d, e, f)
        try:
            self._file.write(RECORD.pack(*record))
        except OSError as error:
            raise self._trouble(error) from error
        if self.observer is not None:
            self.observer(record)

    def flush(self) -> None:
        """Let readers of the file see what was written so far."""
        try:
            self._file.flush()
        except OSError as error:
            raise self._trouble(error) from error

    def close(self) -> None:
        """End the trace cleanly."""
        try:
            self.write(Kind.END, 0, (0, self.count + 1))
            self.flush()
        finally:
            with suppress(OSError):
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
