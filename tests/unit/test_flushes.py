# SPDX-License-Identifier: GPL-2.0-or-later
"""flushes.jsonl is read back as it was written, and anything else is refused."""

import json
from array import array
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model.errors import UsageError
from qemu_model.flushes import (
    AMOUNT_MAX,
    ENTRIES_MAX,
    Flush,
    FlushLog,
    amount,
    flush_line,
    format_entries,
    parse_entries,
    ranges_of,
    read_flushes,
)
from qemu_model.vmlinux.kvm import PAGES_MAX
from qemu_model.watchlog import other_line

HEAD = other_line(version=3, page_shift=12, symbol=None, no_srcu="")
FLUSH = Flush(
    number=1,
    pe=1,
    seq=20,
    seen=21,
    began=19,
    place="drain+0x10",
    base=0x4800_0000,
    index=3,
    noted=2,
    entries=array("Q", (0x4000_0007, 0x4000_1007, 0x4000_2007)),
    slots=((0, 0x40000, 16, True, True), (5, 0x50000, 1, False, False)),
    before=((0x40000, 0x40000),),
    clean=((0x40001, 0x40002),),
    unlogged=4,
    invalid=5,
    unprotected=((0x40000, 0x40000),),
    unjudged=6,
)


def test_a_flush_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "flushes.jsonl"
    path.write_text(HEAD + flush_line(FLUSH) + other_line(late=1) + other_line(end=1))
    assert read_flushes(path) == FlushLog((FLUSH,), frozenset([1]))
    assert '"entries": "40000007*3+1000"' in path.read_text()
    path.write_text(HEAD + other_line(unusable="no memory") + other_line(end=0))
    assert read_flushes(path).absent == "no memory"
    path.write_text(HEAD + flush_line(FLUSH))
    assert read_flushes(path).cut
    head = other_line(version=3, page_shift=16, symbol="drain", no_srcu="no DWARF")
    path.write_text(head + other_line(end=0))
    assert read_flushes(path) == FlushLog(page_shift=16, symbol="drain", no_srcu="no DWARF")


@given(st.lists(st.one_of(st.integers(0, 40), st.integers(0, (1 << 64) - 1)), max_size=60))
def test_entries_come_back(entries: list[int]) -> None:
    assert parse_entries(format_entries(entries)) == array("Q", entries)


def test_runs_are_short() -> None:
    page = 0x1000
    entries = [*range(7, 7 + 600 * page, page), 7, *range(page, 9 * page, 2 * page)]
    assert format_entries(entries) == "7*600+1000 7 1000*4+2000"


@given(st.sets(st.integers(0, 60)))
def test_ranges_have_the_same_members(numbers: set[int]) -> None:
    ranges = ranges_of(sorted(numbers))
    assert {n for first, last in ranges for n in range(first, last + 1)} == numbers
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@pytest.mark.parametrize(
    "text",
    ["x", "7*", "7*0+1", "7*x+1", "-7", "7*2+-5", f"7*{ENTRIES_MAX + 1}+1", "1" * 17,
     "ffffffffffffffff*2+1", f"1*{ENTRIES_MAX}+1 1", "7*2"],
)  # fmt: skip
def test_what_is_no_list_of_entries_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_entries(text)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "nonsense", '{"version": 3}', HEAD + "{}\n", HEAD + '{"flush": 1}\n',
     HEAD + '{"late": "x"}\n', HEAD + "7\n", "\xff", HEAD + "[" * 100_000],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_record_of_flushes_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "flushes.jsonl"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="not a record of flushes"):
        read_flushes(path)
    with pytest.raises(UsageError, match="incomplete"):
        read_flushes(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "value"),
    [("clean", "5-1"), ("entries", "zz"), ("slots", [[1, 2]]), ("pe", None), ("before", 3),
     ("slots", 7), ("index", "x"), ("entries", None), ("clean", "0-9999999999999"),
     ("before", f"0-{PAGES_MAX}"), ("clean", f"5,{1 << 32}-{(1 << 32) + PAGES_MAX - 1}")],
)  # fmt: skip
def test_a_damaged_field_is_refused(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "flushes.jsonl"
    path.write_text(HEAD + json.dumps(json.loads(flush_line(FLUSH)) | {name: value}))
    with pytest.raises(UsageError):
        read_flushes(path)


@pytest.mark.parametrize("shift", [-1, 0, 13, 1 << 40, "x", None, 1e400])
def test_pages_of_no_size_are_refused(tmp_path: Path, shift: object) -> None:
    path = tmp_path / "flushes.jsonl"
    path.write_text(other_line(version=3, page_shift=shift, symbol=None, no_srcu=""))
    with pytest.raises(UsageError, match="not a record of flushes"):
        read_flushes(path)


def test_short_lines_that_stand_for_whole_buffers_are_counted(tmp_path: Path) -> None:
    """A guest with SZ=9 flushes for ever: 240 bytes a flush, 262144 entries each."""
    path = tmp_path / "flushes.jsonl"
    full = replace(FLUSH, entries=array("Q", [7]) * (ENTRIES_MAX - 5))
    assert amount(full) == ENTRIES_MAX - 1
    line = flush_line(full).replace("7 " * (ENTRIES_MAX - 6) + "7", f"7*{ENTRIES_MAX - 5}+0")
    assert len(line) < 400
    most = AMOUNT_MAX // ENTRIES_MAX
    path.write_text(HEAD + most * line + other_line(end=most))
    assert len(read_flushes(path).flushes) == most
    path.write_text(HEAD + (most + 1) * line + other_line(end=most + 1))
    with pytest.raises(UsageError, match=f"more than {AMOUNT_MAX} entries and pages"):
        read_flushes(path)


def test_clean_pages_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "flushes.jsonl"
    block = replace(FLUSH, entries=array("Q", [3]), clean=((0, PAGES_MAX - 1),))
    path.write_text(HEAD + 3 * flush_line(block))
    assert len(read_flushes(path).flushes) == 3
    path.write_text(HEAD + 4 * flush_line(block))
    with pytest.raises(UsageError, match="entries and pages"):
        read_flushes(path)


def test_lines_are_taken_one_by_one(tmp_path: Path) -> None:
    """Nothing is read beyond what cannot be used."""
    path = tmp_path / "flushes.jsonl"
    path.write_text('{"version": 9}\nthis is no JSON\n')
    with pytest.raises(UsageError, match="version 9; this hdbss reads version 3"):
        read_flushes(path)
    path.write_text("")
    with pytest.raises(UsageError, match="not a record of flushes"):
        read_flushes(path)
