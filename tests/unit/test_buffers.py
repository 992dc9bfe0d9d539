# SPDX-License-Identifier: GPL-2.0-or-later
"""buffers.jsonl is read back as it was written, and anything else is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qemu_model.buffers import (
    BufferLog,
    BufferLook,
    PageRun,
    Why,
    look_line,
    read_buffers,
)
from qemu_model.errors import UsageError
from qemu_model.watchlog import other_line

HEAD = other_line(version=1, page_shift=12)
LOOK = BufferLook(
    number=1,
    why=Why.DRAIN,
    pe=1,
    seq=20,
    place="drain+0x10",
    hdbssbr=0x4800_0001,
    first=0x48000,
    frames=2,
    runs=(PageRun(1, 1, 0xFFFF_FFFF, False, -1), PageRun(1, 0, 0xF000_0000, True, 0x48000)),
    owner=1,
    free=((0x48001, 0x48001),),
    zero=0x40200,
)


def read(tmp_path: Path, *lines: str) -> BufferLog:
    path = tmp_path / "buffers.jsonl"
    path.write_text("".join(lines))
    return read_buffers(path)


def test_a_look_comes_back(tmp_path: Path) -> None:
    end = other_line(end=1)
    assert read(tmp_path, HEAD, look_line(LOOK), end) == BufferLog((LOOK,))
    unknown = replace(LOOK, free=None)
    assert read(tmp_path, HEAD, look_line(unknown), end) == BufferLog((unknown,))
    nothing = replace(LOOK, runs=(), owner=0, free=None, zero=-1, error="it is not in RAM")
    assert read(tmp_path, HEAD, look_line(nothing), end) == BufferLog((nothing,))


def test_a_buffer_whose_size_is_reserved_has_no_frames(tmp_path: Path) -> None:
    look = replace(LOOK, hdbssbr=0x4800_000F, frames=0, runs=(), free=None, error="reserved SZ")
    assert read(tmp_path, HEAD, look_line(look)).looks == (look,)
    large = replace(LOOK, first=0x4800, frames=1, runs=LOOK.runs[:1], free=())
    assert read(tmp_path, other_line(version=1, page_shift=16), look_line(large)).looks == (large,)


@pytest.mark.parametrize("shift", [-1, 0, 13, 1 << 40])
def test_pages_of_no_size_are_refused(tmp_path: Path, shift: int) -> None:
    with pytest.raises(UsageError, match=f"page_shift is {shift}: "):
        read(tmp_path, other_line(version=1, page_shift=shift))


def test_what_else_there_is(tmp_path: Path) -> None:
    log = read(tmp_path, HEAD, look_line(LOOK), other_line(late=1), other_line(end=1))
    assert log.late == {1} and not log.cut
    assert read(tmp_path, HEAD, look_line(LOOK)).cut
    assert read(tmp_path, HEAD, look_line(LOOK), other_line(end=2)).cut
    log = read(tmp_path, HEAD, other_line(unusable="a"), other_line(unusable="b"))
    assert log.absent == "a"
    assert read(tmp_path, other_line(version=1, page_shift=16)).page_shift == 16


@pytest.mark.parametrize(
    "change",
    [{"why": "because"}, {"why": None}, {"pe": "x"}, {"pe": None}, {"frames": 3}, {"runs": [[1]]},
     {"runs": 7}, {"free": "2-1"}, {"free": 3}, {"owner": []}, {"zero": {}}, {"seq": 1e400},
     {"first": 0x48001}, {"first": -1}, {"hdbssbr": 0x4800_0000}, {"hdbssbr": 0x4810_0001},
     {"hdbssbr": 0x4800_000F}, {"frames": 1 << 60, "runs": [[1 << 60, 1, 0, False, -1]]},
     {"runs": [[3, 1, 0, False, -1], [-1, 1, 0, False, -1]]},
     {"runs": [[2, 1, 0, False, -1], [0, 1, 0, False, -1]]},
     {"hdbssbr": 0x4800_000F, "frames": 0, "runs": []}, {"frames": 0, "runs": []},
     {"error": "it is not in RAM", "frames": 1 << 60},
     {"free": "294912-9999999999999"}, {"free": "294911"}],
)  # fmt: skip
def test_a_look_that_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    line = json.loads(look_line(LOOK)) | change
    with pytest.raises(UsageError, match="not a record of buffers"):
        read(tmp_path, HEAD, json.dumps(line) + "\n")


@pytest.mark.parametrize("field", json.loads(look_line(LOOK)))
def test_a_look_that_says_too_little(tmp_path: Path, field: str) -> None:
    line = json.loads(look_line(LOOK))
    line.pop(field)
    with pytest.raises(UsageError, match="not a record of buffers"):
        read(tmp_path, HEAD, json.dumps(line) + "\n")


@pytest.mark.parametrize(
    "text", ["", "{", "[]\n", '{"version": 2, "page_shift": 12}\n', "[" * 100_000, '{"version": 1}']
)
def test_a_file_that_is_something_else(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="not a record of buffers"):
        read(tmp_path, text)


def test_a_line_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a record of buffers"):
        read(tmp_path, HEAD, other_line(flush=1))


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="incomplete"):
        read_buffers(tmp_path / "none")
