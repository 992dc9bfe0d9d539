# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's comparison of guest memory with its copy."""

import pytest

from qemu_model.pages import parse_ranges

from .driver import drive

PAGE = 4096


def memory(pages: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(PAGE)) * pages


def lane_words(mem: bytes | bytearray, lane: int) -> bytes:
    return b"".join(mem[at + 8 * lane : at + 8 * lane + 8] for at in range(0, len(mem), PAGE))


def run(mem: bytes | bytearray, copy: bytes, lane: int, what: str) -> tuple[str, bytes]:
    out = drive("truth", len(mem) // PAGE, lane, what, data=bytes(mem) + bytes(copy))
    pages, _, rest = out.partition(b"\n")
    return pages.decode(), rest


@pytest.mark.parametrize("offset", [0, 7, 8, 63, 64, 2048, 4088, 4095])
@pytest.mark.parametrize("what", ["update", "look", "pages"])
def test_one_byte_changes_one_page(offset: int, what: str) -> None:
    copy = memory(70)
    mem = bytearray(copy)
    mem[66 * PAGE + offset] ^= 1
    pages, after = run(mem, copy, -1, what)
    assert pages == "66"
    assert after == (mem if what == "update" else copy)


@pytest.mark.parametrize("lane", [-1, 0, 511])
def test_equal_memory_has_no_changed_page(lane: int) -> None:
    mem = memory(3)
    copy = bytes(mem) if lane < 0 else lane_words(mem, lane)
    assert run(mem, copy, lane, "update") == ("-", copy)


@pytest.mark.parametrize("lane", [0, 1, 255, 511])
def test_a_lane_sees_its_eight_bytes_only(lane: int) -> None:
    before = memory(5)
    mem = bytearray(before)
    mem[1 * PAGE + 8 * lane + 7] ^= 0x80
    mem[2 * PAGE + (8 * lane + 8) % PAGE] ^= 1
    mem[3 * PAGE + (8 * lane - 1) % PAGE] ^= 1
    pages, after = run(mem, lane_words(before, lane), lane, "update")
    assert pages == "1"
    assert after == lane_words(mem, lane)


@pytest.mark.parametrize("lane", [-1, 3])
def test_copying_takes_all_pages_or_the_marked_ones(lane: int) -> None:
    mem = memory(4)
    every = bytes(mem) if lane < 0 else lane_words(mem, lane)
    size = len(every) // 4
    assert run(mem, bytes(len(every)), lane, "copy-all")[1] == every
    pages, after = run(mem, bytes(len(every)), lane, "copy-odd")
    assert parse_ranges(pages) == ((1, 1), (3, 3))
    assert [after[i * size : (i + 1) * size] for i in range(4)] == [
        bytes(size), every[size : 2 * size], bytes(size), every[3 * size :],
    ]  # fmt: skip
