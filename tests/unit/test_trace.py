# SPDX-License-Identifier: GPL-2.0-or-later
"""The trace format: written and read back, and everything that is no trace refused."""

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model.arch.registers import SysReg
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.trace import (
    END_CLEAN,
    END_LIMIT,
    FLAG_CAS_LOST,
    HEADER,
    RECORD,
    VERSION,
    Anomaly,
    Header,
    Kind,
    RawRecord,
    Trace,
    TraceWriter,
    count_records,
    describe,
    iterate,
    read_header,
    read_trace,
)
from tests.unit.checkers.factory import append, event, make_trace, mark

HEAD = Header(0x4000_0000, 0x2000_0000, 3, "gdbstub")
U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
KINDS = st.sampled_from([kind for kind in Kind if kind not in (Kind.NONE, Kind.END)])
RECORDS = st.lists(st.tuples(KINDS, U16, st.lists(U64, max_size=6), U32), max_size=8)
CHUNK = 1 << 16
"""A live file is longer than what was written to it."""


def written(tmp_path: Path, records: int = 3) -> bytes:
    """A trace of BEGIN, marks and END: ``records`` of them in all."""
    path = tmp_path / "written.bin"
    with TraceWriter(path, HEAD) as writer:
        writer.write(Kind.BEGIN, 0, (1,))
        for line in range(records - 2):
            writer.write(Kind.MARK, 0, (line << 1,))
    return path.read_bytes()


def read(tmp_path: Path, data: bytes) -> Trace:
    path = tmp_path / "trace.bin"
    path.write_bytes(data)
    return read_trace(path)


def with_field(data: bytes, offset: int, field: bytes) -> bytes:
    return data[:offset] + field + data[offset + len(field) :]


def test_sizes_are_those_that_the_plugin_writes() -> None:
    assert (HEADER.size, RECORD.size) == (64, 64)


@given(head=st.builds(Header, U64, U64, U32, st.sampled_from(["plugin", "gdbstub", "12345678"])))
def test_a_header_round_trip(tmp_path_factory: pytest.TempPathFactory, head: Header) -> None:
    path = tmp_path_factory.getbasetemp() / "header.bin"
    TraceWriter(path, head).close()
    data = path.read_bytes()
    assert read_header(data) == head
    assert data[48:64] == bytes(16)


@given(records=RECORDS)
def test_a_records_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    records: Sequence[tuple[Kind, int, list[int], int]],
) -> None:
    path = tmp_path_factory.getbasetemp() / "records.bin"
    with TraceWriter(path, HEAD) as writer:
        for kind, pe, fields, flags in records:
            writer.write(kind, pe, fields, flags)
    trace = read_trace(path)
    expected: list[RawRecord] = []
    for seq, (kind, pe, fields, flags) in enumerate(records, 1):
        a, b, c, d, e, f = (*fields, *[0] * (6 - len(fields)))
        expected.append((seq, int(kind), pe, flags, a, b, c, d, e, f))
    last = len(records) + 1
    expected.append((last, int(Kind.END), 0, 0, END_CLEAN, last, 0, 0, 0, 0))
    assert list(trace) == expected
    assert list(trace) == expected  # each iteration starts anew
    assert (trace.header, trace.count, trace.end) == (HEAD, last, END_CLEAN)
    assert path.stat().st_size == HEADER.size + last * RECORD.size
    assert count_records(path) == last


@given(records=RECORDS, wanted=st.sets(KINDS))
def test_records_of_some_kinds(
    tmp_path_factory: pytest.TempPathFactory,
    records: list[tuple[Kind, int, list[int], int]],
    wanted: set[Kind],
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.bin"
    with TraceWriter(path, HEAD) as writer:
        for kind, pe, fields, flags in records:
            writer.write(kind, pe, fields, flags)
    trace = read_trace(path)
    assert list(trace.of(*wanted)) == [record for record in trace if record[1] in wanted]


def test_a_kind_with_a_second_byte_is_another_kind(tmp_path: Path) -> None:
    data = with_field(written(tmp_path), HEADER.size + 8, struct.pack("<H", 0x100 | Kind.MARK))
    assert [record[0] for record in read(tmp_path, data).of(Kind.MARK)] == [2]


def test_an_empty_file_and_a_short_header(tmp_path: Path) -> None:
    for size in (0, 1, HEADER.size - 1):
        with pytest.raises(UsageError, match=f"{size} bytes are too few"):
            read(tmp_path, written(tmp_path)[:size])


def test_a_header_alone_is_a_trace_that_was_killed(tmp_path: Path) -> None:
    trace = read(tmp_path, written(tmp_path)[: HEADER.size])
    assert (list(trace), trace.count, trace.end) == ([], 0, None)


def test_a_foreign_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="magic number"):
        read(tmp_path, with_field(written(tmp_path), 0, b"\x7fELF"))


@pytest.mark.parametrize(
    ("offset", "number", "said"),
    [(8, VERSION + 1, "version 2 with records of 64"), (8, 0, "version 0"), (12, 128, "of 128")],
)
def test_another_version(tmp_path: Path, offset: int, number: int, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path, with_field(written(tmp_path), offset, struct.pack("<I", number)))


def test_a_writer_with_a_name_that_is_no_text(tmp_path: Path) -> None:
    trace = read(tmp_path, with_field(written(tmp_path), 40, b"\xff\xfe\0\0\0\0\0\0"))
    assert trace.header.writer == "\ufffd\ufffd"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.bin: No such file"):
        read_trace(tmp_path / "none.bin")
    with pytest.raises(UsageError, match="Is a directory"):
        read_trace(tmp_path)


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_hole_in_the_sequence(tmp_path: Path, place: int) -> None:
    data = written(tmp_path, records=5)
    start = HEADER.size + place * RECORD.size
    with pytest.raises(UsageError, match=f"record {place + 1} has sequence number {place + 2}"):
        read(tmp_path, data[:start] + data[start + RECORD.size :])
    with pytest.raises(UsageError, match="damaged"):
        read(tmp_path, with_field(data, start, bytes(8)))


def test_records_in_the_wrong_order(tmp_path: Path) -> None:
    data = written(tmp_path, records=4)
    records = [data[offset : offset + 64] for offset in range(64, len(data), 64)]
    with pytest.raises(UsageError, match="record 2 has sequence number 3"):
        read(tmp_path, b"".join([data[:64], records[0], records[2], records[1], records[3]]))


def test_a_killed_writer_left_room(tmp_path: Path) -> None:
    """The file was grown in a chunk; the first record of kind 0 is the end."""
    data = written(tmp_path, records=6)[: HEADER.size + 5 * RECORD.size]
    trace = read(tmp_path, data + bytes(CHUNK))
    assert (trace.count, trace.end) == (5, None)
    assert [record[0] for record in trace] == [1, 2, 3, 4, 5]


def test_a_killed_writer_was_inside_a_record(tmp_path: Path) -> None:
    """All fields are there but the kind, which is published last: the record never was."""
    data = written(tmp_path, records=6)
    kind = HEADER.size + 2 * RECORD.size + 8
    trace = read(tmp_path, with_field(data, kind, b"\0\0") + bytes(CHUNK))
    assert (trace.count, trace.end) == (2, None)


def test_a_record_cut_in_the_middle(tmp_path: Path) -> None:
    trace = read(tmp_path, written(tmp_path, records=4)[:-1])
    assert (trace.count, trace.end) == (3, None)


def test_the_limit_is_told_from_a_clean_end(tmp_path: Path) -> None:
    assert make_trace([mark(1)], end=END_LIMIT).end == END_LIMIT
    assert read(tmp_path, make_trace([mark(1)], end=END_LIMIT).data).end == END_LIMIT
    assert read(tmp_path, make_trace([mark(1)]).data).end == END_CLEAN
    assert read(tmp_path, make_trace([mark(1)], ended=False).data).end is None


def test_a_writer_that_fails_leaves_no_end(tmp_path: Path) -> None:
    """Or half a trace would look like a whole one."""
    path = tmp_path / "trace.bin"
    with pytest.raises(ZeroDivisionError), TraceWriter(path, HEAD) as writer:
        writer.write(Kind.BEGIN, 0, (1,))
        raise ZeroDivisionError
    trace = read_trace(path)
    assert (trace.count, trace.end) == (1, None)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 63, 64, 65])
@pytest.mark.parametrize("room", [0, 1, 64, CHUNK])
def test_records_of_a_live_file_are_counted(tmp_path: Path, count: int, room: int) -> None:
    path = tmp_path / "trace.bin"
    data = make_trace([mark(line) for line in range(70)]).data
    path.write_bytes(data[: HEADER.size + count * RECORD.size] + bytes(room))
    assert count_records(path) == count


@given(steps=st.lists(st.integers(0, 300), min_size=1, max_size=5), room=st.integers(0, 300))
def test_records_are_counted_while_they_come(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], room: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "growing.bin"
    data, total = make_trace([mark(line) for line in range(1500)]).data, 0
    for step in steps:
        total += step
        path.write_bytes(data[: HEADER.size + total * RECORD.size] + bytes(RECORD.size * room))
        assert count_records(path) == total


@pytest.mark.parametrize("size", [0, 1, 63])
def test_counting_before_the_header_is_complete(tmp_path: Path, size: int) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(b"H" * size)
    assert count_records(path) == 0


def test_counting_without_a_file(tmp_path: Path) -> None:
    assert count_records(tmp_path / "none.bin") == 0
    assert count_records(tmp_path) == 0


def test_counting_does_not_read_everything(tmp_path: Path) -> None:
    """A sparse file of 1 TB is looked at as fast as any other."""
    path = tmp_path / "trace.bin"
    path.write_bytes(make_trace([mark(1)]).data)
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    assert count_records(path) == 3


@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.bin"
    path.write_bytes(data)
    assert count_records(path) <= len(data) // RECORD.size
    with pytest.raises(UsageError):
        read_trace(path)


@given(body=st.binary(max_size=400), sequence=st.integers(0, 6))
def test_random_records_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, sequence: int
) -> None:
    """Behind a true header, and with the first sequence numbers true."""
    for place in range(sequence):
        if len(body) >= (place + 1) * RECORD.size:
            body = with_field(body, place * RECORD.size, struct.pack("<Q", place + 1))
    path = tmp_path_factory.getbasetemp() / "random.bin"
    path.write_bytes(make_trace([]).data[: HEADER.size] + body)
    count = count_records(path)
    assert 0 <= count <= len(body) // RECORD.size
    try:
        trace = read_trace(path)
    except UsageError as error:
        assert "sequence number" in str(error)
        return
    records = list(trace)
    assert len(records) == trace.count <= len(body) // RECORD.size
    assert trace.end is None or records[-1][1] == Kind.END
    for record in records:
        assert "\n" not in describe(record)


@given(record=st.tuples(U64, U16, U16, U32, U64, U64, U64, U64, U64, U64))
def test_any_numbers_can_be_described(record: RawRecord) -> None:
    text = describe(record)
    assert text.startswith(f"#{record[0]} PE {record[2]} ") and "\n" not in text


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (event(Kind.WRITE, SysReg.HDBSSBR_EL2, 0x103, 0x103, 9), "WRITE HDBSSBR_EL2 value=0x103"),
        (event(Kind.READ, 0x123, 5), "READ 0x123 value=0x5"),
        (event(Kind.ANOMALY, Anomaly.RESERVED_SZ, 0xF), "ANOMALY RESERVED_SZ b=0xf"),
        (event(Kind.ANOMALY, 77), "ANOMALY 77 b=0x0"),
        (mark(12), "MARK line 12 begins"),
        (mark(12, 1), "MARK line 12 ends"),
        (append(1, 511), "APPEND INDEX=511 ipa=0x40001000"),
        (event(Kind.APPEND, 0, flags=FLAG_CAS_LOST | 7), "APPEND INDEX=7 CAS lost"),
        (event(Kind.EXIT, 0x96, 1, 2, 3, 0x400, 5), "vector=0x400 ELR=0x5"),
    ],
)
def test_records_in_words(made: tuple[Kind, int, tuple[int, ...], int], words: str) -> None:
    trace = make_trace([made])
    assert words in describe(list(trace)[1])


def test_a_kind_of_the_future_is_shown_by_number() -> None:
    assert "kind 99" in describe((1, 99, 0, 0, 0, 0, 0, 0, 0, 0))


def test_iterating_a_view_of_a_trace() -> None:
    data = make_trace([mark(1)]).data
    assert list(iterate(memoryview(data))) == list(iterate(data))
    assert len(list(iterate(data))) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the host has no /dev/full")
@pytest.mark.parametrize("how", ["write", "flush", "close"])
def test_a_full_disk_is_told(how: str) -> None:
    writer = TraceWriter(Path("/dev/full"), Header(0, 0, 1, "test"))
    with pytest.raises(InfrastructureError, match="cannot write the trace /dev/full: No space"):
        for _ in range(1000 if how == "write" else 1):
            writer.write(Kind.MARK, 0, (1,))
        writer.flush() if how == "flush" else writer.close()


def test_a_trace_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"cannot write the trace .*No such file"):
        TraceWriter(tmp_path / "no" / "trace.bin", Header(0, 0, 1, "test"))
