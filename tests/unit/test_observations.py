# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's channel, whole and damaged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model.errors import UsageError
from qemu_model.observations import checksum, parse_pages, read_observations


def frame(seq: int, line: int, rest: str) -> bytes:
    body = f"{seq} {line} {rest}"
    return f"@HDBSS {seq} {checksum(body)} {line} {rest}\n".encode()


WHOLE = (
    frame(1, 0, "hello version=1 cpus=2")
    + frame(2, 5, "pages slot=0 what=reported list=0-3,9")
    + frame(3, 5, "result op=get ret=0 errno=0 text=a%20b%3d")
    + frame(4, 0, "bye lines=5")
)


def test_a_whole_channel_has_no_problem() -> None:
    seen = read_observations(WHOLE)
    assert seen.problem is None
    assert [f.kind for f in seen.frames] == ["hello", "pages", "result", "bye"]
    result = seen.result(5)
    assert result is not None and result.values["text"] == "a b="
    assert (result.number("ret", -1), result.number("none", 3)) == (0, 3)
    assert seen.result(6) is None


def test_frames_are_found_between_other_text() -> None:
    noise = b"[    1.0] kernel talks @HDBSS nonsense\r\n"
    lines = WHOLE.splitlines(keepends=True)
    seen = read_observations(noise + lines[0] + b"[ 1] half a line " + b"".join(lines[1:]))
    assert seen.problem is None and len(seen.frames) == 4


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no frame"),
        (WHOLE.replace(b"0-3,9", b"0-4,9"), "checksum"),
        (WHOLE.replace(frame(3, 5, "result op=get ret=0 errno=0 text=a%20b%3d"), b""), "frame 3"),
        (WHOLE[: WHOLE.index(b"@HDBSS 4")], "farewell"),
        (frame(1, 0, "fatal text=no%20kvm"), "no kvm"),
    ],
)
def test_a_damaged_channel_says_what_is_wrong(data: bytes, problem: str) -> None:
    seen = read_observations(data)
    assert seen.problem is not None and problem in seen.problem


@given(st.binary(max_size=300), st.integers(0, len(WHOLE)))
def test_no_bytes_make_the_reader_fail(junk: bytes, at: int) -> None:
    read_observations(WHOLE[:at] + junk + WHOLE[at:])
    read_observations(b"@HDBSS 1 " + junk)


def test_page_lists() -> None:
    assert parse_pages("-", 4) == set()
    assert parse_pages("0-2,9", 10) == {0, 1, 2, 9}


@pytest.mark.parametrize("text", ["0-99999999999", "10", "3-2", "0-10", "x", "", "1,,2"])
def test_a_page_list_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_pages(text, 10)
