# SPDX-License-Identifier: GPL-2.0-or-later
"""Records become moments that people wait for; instructions become lines."""

import struct

import pytest

from qemu_model.arch.registers import SysReg, mrs, msr
from qemu_model.channel import Begin, Bye, Fatal, Frame, Hello, Result
from qemu_model.gdbstub.listing import instruction, listing
from qemu_model.gdbstub.moments import Moment, Moments
from qemu_model.gdbstub.shell import agent_lines
from qemu_model.trace import Kind, RawRecord
from qemu_model.vmlinux.sites import HINT_127
from tests.unit.arch.tables import vtcr


def record(kind: int, *fields: int, pe: int = 0, flags: int = 0) -> RawRecord:
    a, b, c, d, e, f = (*fields, 0, 0, 0, 0, 0, 0)[:6]
    return (1, kind, pe, flags, a, b, c, d, e, f)


def prod(value: int, pe: int = 0) -> RawRecord:
    return record(Kind.WRITE, SysReg.HDBSSPROD_EL2, value, value, 0x1234, pe=pe)


def append(index: int, pe: int = 0) -> RawRecord:
    clean = 0x0008_0000_0000_0443
    return record(
        Kind.APPEND, 0x4000_1000, 0x4000_1007, 0x4200_0000, 0x4300_0008, clean, clean | 1 << 7,
        pe=pe, flags=index,
    )  # fmt: skip


@pytest.fixture
def moments() -> Moments:
    found = Moments(2, lambda address: f"place_{address:x}")
    vtcr_at_reset = vtcr("4k", 40, 1)
    for pe in (0, 1):
        assert found.take(record(Kind.RESET, 0, 0, vtcr_at_reset, pe=pe)) is None
    return found


def test_an_append(moments: Moments) -> None:
    event = append(5)
    assert moments.take(event) is Moment.APPEND
    assert list(moments.words(event, Moment.APPEND)) == [
        "#1 PE 0 APPEND INDEX=5 ipa=0x40001000 entry=0x40001007 slot=0x42000000 "
        "descriptor=0x43000008 before=0x8000000000443 after=0x80000000004c3",
        "  entry 5: IPA 0x40001000, TTWL 3 (level 3, 4 KB)",
        "  descriptor at 0x43000008: writable-clean -> writable-dirty",
    ]


def test_a_flush_is_index_back_at_0(moments: Moments) -> None:
    assert moments.take(prod(0)) is None  # it was 0 before
    moments.take(append(0))
    moments.take(append(1))
    assert moments.take(prod(0, pe=1)) is None  # another PE's
    event = prod(0)
    assert moments.take(event) is Moment.FLUSH
    assert list(moments.words(event, Moment.FLUSH))[1:] == ["  INDEX 2 -> 0 at place_1234"]
    assert moments.take(prod(0)) is None


def test_an_index_that_is_loaded_counts(moments: Moments) -> None:
    assert moments.take(prod(7)) is None
    assert moments.take(prod(3)) is None
    assert moments.take(prod(0)) is Moment.FLUSH
    moments.take(prod(9))
    moments.take(record(Kind.RESET))
    assert moments.take(prod(0)) is None


@pytest.mark.parametrize(
    ("held", "why"),
    [(512, "the buffer is full: INDEX 512 of 512"), (0x4000_0002, "FSC is not 0: INDEX 2 of 512")],
)
def test_a_refusal(moments: Moments, held: int, why: str) -> None:
    event = record(Kind.REFUSE, 0x4000_1000, 0x800_93C5_804F, held, 0, 0, 0x4200_0000)
    assert moments.take(event) is Moment.REFUSAL
    assert list(moments.words(event, Moment.REFUSAL))[1:] == [f"  {why}; a write to IPA 0x40001000"]


def test_entry_and_exit(moments: Moments) -> None:
    event = record(Kind.ENTRY, 0, 4, 0, 0, 0, 0x1000_0024)
    assert moments.take(event) is Moment.ENTRY
    assert list(moments.words(event, Moment.ENTRY))[1:] == [
        "  into the guest at 0x10000024 with INDEX 4"
    ]
    event = record(Kind.EXIT, 0x93C5_8047, 0x40001000, 0x40_0010, 4, 0x400, 0x1000_0024)
    assert moments.take(event) is Moment.EXIT
    text = "data abort, Translation fault level 3, write, IPA 0x40001000 (ESR_EL2 0x93c58047)"
    assert moments.last_exit == [text, ""]
    assert list(moments.words(event, Moment.EXIT))[1:] == [f"  {text}, from 0x10000024"]


@pytest.mark.parametrize("kind", [Kind.READ, Kind.MARK, Kind.ANOMALY, Kind.END, 99])
def test_no_moment(moments: Moments, kind: int) -> None:
    assert moments.take(record(kind)) is None


def test_a_pe_that_nobody_knows(moments: Moments) -> None:
    assert moments.take(append(0, pe=2)) is None


# --- instructions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (msr(SysReg.HDBSSPROD_EL2, 3), "msr HDBSSPROD_EL2, x3"),
        (mrs(SysReg.HDBSSBR_EL2, 0), "mrs x0, HDBSSBR_EL2"),
        (msr(SysReg.HDBSSPROD_EL2, 31), "msr HDBSSPROD_EL2, xzr"),
        (mrs(SysReg.VTCR_EL2, 1), "mrs x1, vtcr_el2"),
        (HINT_127, "hint #127 // the agent's marker"),
        (0xD503201F, "nop"),
        (0xFFFFFFFF, ".inst 0xffffffff"),
    ],
)
def test_an_instruction(word: int, text: str) -> None:
    assert instruction(word, 0x1000) == text


def test_a_listing() -> None:
    code = struct.pack("<II", 0xD503201F, 0x14000000) + b"\0\0"
    lines = listing(0x1000, code, lambda at: f"f+{at - 0x1000}", lambda at: "PC" * (at == 0x1000))
    assert list(lines) == [
        "  0x1000 <f+0>: nop // PC",
        "  0x1004 <f+4>: b #0x1004",
    ]


# --- the agent ----------------------------------------------------------------------------

PROGRAM = ["uapi cap=0", "vm # expect errno=EINVAL", "vcpu 0"]


@pytest.mark.parametrize(
    ("frames", "lines"),
    [
        ([], ["the agent has not said a word yet"]),
        ([Hello(1, 0, 1, 2, 4096)], ["the agent is up"]),
        ([Begin(1, 2, "vm")], ["line 2 of 3: vm ..."]),
        (
            [Result(1, 1, "uapi", 0, 0, {"exit": "door"}), Begin(2, 2, "vm")],
            ["line 1 of 3: uapi cap=0 -> ret=0 exit=door", "line 2 of 3: vm ..."],
        ),
        (
            [Result(1, 1, "uapi", 0, 0, {}), Result(2, 2, "vm", -1, 22, {"why": "\x1b[1mno\x07"})],
            ["line 2 of 3: vm -> ret=-1 why=no"],
        ),
        ([Bye(1, 0, 3)], ["all 3 lines are done"]),
        ([Fatal(1, 0, "no \x1b[1mmemory")], ["the agent gave up: no memory"]),
        ([Begin(1, 9, "vm")], ["line 9 of 3: ? ..."]),
    ],
)
def test_how_far_the_agent_is(frames: list[Frame], lines: list[str]) -> None:
    count = 1
    assert agent_lines(frames, PROGRAM, count) == lines
