# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's frames, page lists and log records, against the Python readers."""

import zlib
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qemu_model.channel import FRAME_MAX, ChannelError, Result, decode
from qemu_model.pages import members, parse_ranges

from .driver import drive

FEW = settings(max_examples=60, deadline=None)


def words(bits: int, nr: int) -> bytes:
    return bits.to_bytes((nr + 63) // 64 * 8, "little")


@FEW
@given(st.binary(max_size=300))
@example(b"")
@example(b"123456789")
def test_the_checksum_is_zlib_s(data: bytes) -> None:
    assert int(drive("crc", data=data), 16) == zlib.crc32(data)


def test_python_reads_a_frame() -> None:
    body = b"result op=get ret=-1 errno=2 errname=ENOENT reported=0"
    line = drive("frame", 12, 34, data=body)
    assert line.endswith(b"\n")
    frame = decode(line[:-1])
    assert isinstance(frame, Result)
    assert (frame.seq, frame.line, frame.op, frame.ret, frame.errno) == (12, 34, "get", -1, 2)
    assert dict(frame.fields) == {"errname": "ENOENT", "reported": "0"}


def test_python_refuses_a_frame_that_was_damaged() -> None:
    line = drive("frame", 12, 34, data=b"bye lines=3")
    with pytest.raises(ChannelError, match="checksum"):
        decode(line[:-1].replace(b"lines=3", b"lines=4"))


@FEW
@given(st.binary(max_size=200).filter(lambda body: b"\0" not in body))
def test_a_frame_is_one_line_of_printable_bytes(body: bytes) -> None:
    line = drive("frame", 1, 0, data=body)
    text = line.removeprefix(b"@HDBSS ").removesuffix(b"\n")
    assert all(32 <= byte < 127 for byte in text)
    seq, crc, rest = text.split(b" ", 2)
    assert int(crc, 16) == zlib.crc32(seq + b" " + rest)


@pytest.mark.parametrize("size", [4000, 4032, 4033, 5000, 20000])
def test_a_frame_has_its_limit(size: int) -> None:
    line = drive("frame", 2**64 - 1, 2**32 - 1, data=b"line text=".ljust(size, b"x"))
    assert line.endswith(b"x\n")
    assert len(line) <= FRAME_MAX
    assert (len(line) == size + len(line.split(b"line")[0]) + 1) is (size <= 4032)
    _, crc, _ = line.removeprefix(b"@HDBSS ").split(b" ", 2)
    body = line[:-1].removeprefix(b"@HDBSS ").replace(crc + b" ", b"", 1)
    assert int(crc, 16) == zlib.crc32(body)


@FEW
@given(st.binary(max_size=100))
def test_free_text_comes_back(data: bytes) -> None:
    encoded = drive("encode", 4096, data=data)
    assert b" " not in encoded and b"=" not in encoded
    assert unquote_to_bytes(encoded) == data


@FEW
@given(st.binary(min_size=1, max_size=40), st.integers(1, 50))
def test_free_text_is_cut_between_characters(data: bytes, size: int) -> None:
    encoded = drive("encode", size, data=data)
    assert len(encoded) < size
    assert data.startswith(unquote_to_bytes(encoded))


@FEW
@given(st.data())
def test_page_lists_mean_the_bitmap(data: st.DataObject) -> None:
    nr = data.draw(st.integers(1, 300))
    runs = data.draw(st.lists(st.tuples(st.integers(0, nr - 1), st.integers(1, 80)), max_size=20))
    bits = 0
    for first, length in runs:
        bits |= ((1 << length) - 1) << first
    bits &= (1 << nr) - 1
    # Bits beyond the last page are not pages.
    beyond = data.draw(st.integers(0, 2**64 - 1)) << nr & ((1 << (nr + 63) // 64 * 64) - 1)
    size = data.draw(st.integers(48, 200))
    count, *chunks = drive("list", nr, size, data=words(bits | beyond, nr)).decode().split()
    assert int(count) == bits.bit_count()
    assert all(len(chunk) < size for chunk in chunks)
    assert (chunks == ["-"]) == (bits == 0)
    assert sum(1 << page for chunk in chunks for page in members(parse_ranges(chunk), nr)) == bits


def test_a_full_slot_is_one_range_and_its_edges_count() -> None:
    assert drive("list", 4096, 100, data=b"\xff" * 512) == b"4096\n0-4095\n"
    assert drive("list", 65, 100, data=words(1 | 1 << 63 | 1 << 64, 65)) == b"3\n0,63-64\n"


@FEW
@given(st.data())
def test_a_cleared_range_is_the_bitmap_inside_it(data: st.DataObject) -> None:
    nr = data.draw(st.integers(1, 200))
    bits = data.draw(st.integers(0, (1 << nr) - 1))
    first = data.draw(st.one_of(st.integers(0, 250), st.just(2**64 - 1)))
    pages = data.draw(st.one_of(st.integers(0, 250), st.just(2**64 - 1)))
    kept = drive("keep", nr, first, pages, data=words(bits, nr)).decode().strip()
    expected = sum(1 << p for p in range(nr) if bits >> p & 1 and first <= p < first + pages)
    assert sum(1 << page for page in members(parse_ranges(kept), nr)) == expected


@pytest.mark.parametrize(
    ("record", "read"),
    [
        (b"4,1,2,-;a warning\n", b"4 a warning\n"),
        (b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n", b"6 NET: Registered\n"),
        (b"0,1,2,-,caller=T1;\n", b"0 \n"),
        (b"7;no end", b"7 no end\n"),
        (b"12,1,2,-;from user space\n", b"no\n"),
        (b"99999999999999999999,1;x\n", b"no\n"),
        (b",1,2,-;x\n", b"no\n"),
        (b"4x,1,2,-;x\n", b"no\n"),
        (b"4,1,2,-\n", b"no\n"),
        (b"", b"no\n"),
        (b";", b"no\n"),
    ],
)
def test_a_log_record_has_a_level_and_a_text(record: bytes, read: bytes) -> None:
    assert drive("klog", "klog level=7", data=record) == read


@pytest.mark.parametrize("level", range(8))
def test_records_count_up_to_the_level_asked_for(level: int) -> None:
    """Up to 4 unless it is said: a warning counts, an information does not."""
    record = b"%d,1,2,-;x\n" % level
    counted, not_counted = b"%d x\n" % level, b"no\n"
    assert drive("klog", "klog", data=record) == (counted if level <= 4 else not_counted)
    assert drive("klog", f"klog level={level}", data=record) == counted
    if level:
        assert drive("klog", f"klog level={level - 1}", data=record) == not_counted
    assert drive("klog", "klog level=7", data=record) == counted


@FEW
@given(st.binary(max_size=40))
def test_no_log_record_breaks_the_reader(record: bytes) -> None:
    assert drive("klog", "klog level=7", data=record)
