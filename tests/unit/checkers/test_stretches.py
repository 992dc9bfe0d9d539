# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program's text says about timing."""

import pytest

from qemu_model.checkers.stretches import Kind, Stretch, cut, stored_pages
from qemu_model.errors import UsageError
from qemu_model.program import parse
from qemu_model.scenarios.catalogue import SCENARIOS
from qemu_model.scenarios.scenario import Scenario, Uapi

HEAD = "uapi cap=300\nvm\nvcpu 0\nvcpu 1\n"
RUN = "run 0 stride gpa=0x40000000 count=4 stride=4096 value=1\n"
START = "start 0 stride gpa=0x40000000 count=4 stride=4096 value=1 loops=0\n"
OTHER = "start 1 stride gpa=0x40002000 count=4 stride=4096 value=1\n"
PINNED = "pin vcpu=0 cpu=1\npin vcpu=1 cpu=2\n"


def last(text: str) -> Stretch:
    return cut(parse(HEAD + text))[-1]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_line_is_in_one_stretch(scenario: Scenario, small: bool) -> None:
    program = scenario.program(Uapi("cap", 300), 1, small)
    operations = [operation for stretch in cut(program) for operation in stretch.operations]
    assert operations == program.operations


def test_what_runs() -> None:
    kinds = [(s.kind, s.lines) for s in cut(parse(f"{HEAD}{RUN}{START}get 0\nstop 0\nget 0\n"))]
    assert kinds[4:] == [(Kind.RUN, (5, 5)), (Kind.FREE, (6, 8)), (Kind.STILL, (9, 9))]


def test_a_stretch_lasts_until_nobody_runs() -> None:
    for end in ("wait 1\nstop 0\n", "stop 0\nwait 1\n", "get 0\ndestroy\n"):
        assert last(f"{START}{OTHER}{end}").kind is Kind.FREE
        assert last(f"{START}{OTHER}{end}get 0\n").kind is Kind.STILL
    assert last(f"{START}{OTHER}stop 0\nget 0\n").lines == (5, 8)
    assert last(f"{START}{RUN.replace('0', '1', 1)}stop 0\n").kind is Kind.FREE


def test_a_vcpu_that_is_created_beside_the_program() -> None:
    assert last("create 2 cpu=1\nhdbss on order=0\ncreated 2\n").lines == (5, 7)
    stretch = last(f"{PINNED}{RUN}create 2 cpu=1\ncreated 2\n{RUN}")
    assert stretch.kind is Kind.RUN and not stretch.warm


def test_a_program_that_stops_in_the_middle() -> None:
    assert last(START).kind is Kind.FREE
    assert cut(parse("")) == []


@pytest.mark.parametrize(
    ("before", "calm", "warm", "pe"),
    [
        ("", False, False, False),
        ("pin vcpu=0 cpu=1\n", False, False, True),
        ("pin fifo vcpu=0 cpu=1\n", True, False, True),
        (f"pin fifo vcpu=0 cpu=1\n{RUN}", True, False, True),
        (f"{PINNED}{RUN}", False, True, True),
        (f"{PINNED}", False, False, True),
        (f"pin vcpu=0 cpu=1\npin vcpu=1 cpu=1\n{RUN}", False, False, True),
        (f"{PINNED}{RUN}pin vcpu=1 cpu=3\n", False, False, True),
        (f"{PINNED}{RUN}vcpu 2\n", False, False, True),
        (f"{PINNED}{RUN}vm\nvcpu 0\n", False, False, False),
        (f"{PINNED}{RUN}destroy\n", False, False, False),
    ],
)
def test_a_run(before: str, calm: bool, warm: bool, pe: bool) -> None:
    stretch = last(before + RUN)
    assert (stretch.calm, stretch.warm, stretch.pe_counts(0x4000_0000)) == (calm, warm, pe)


def test_a_kernel_that_may_flush_at_each_exit_is_never_calm() -> None:
    program = f"{HEAD.replace('300', '0')}pin fifo vcpu=0 cpu=1\n{RUN}"
    assert not cut(parse(program))[-1].calm


def test_the_pe_counts_for_pages_of_one_pinned_vcpu() -> None:
    both = last(f"{PINNED}{START}{OTHER}stop 0\nwait 1\n")
    pages = [both.pe_counts(0x4000_0000 + page * 4096) for page in range(7)]
    assert pages == [True, True, False, False, True, True, False]
    moves = last(f"{PINNED}{START}{OTHER}pin vcpu=0 cpu=3\nstop 0\nwait 1\n")
    assert [moves.pe_counts(0x4000_0000 + p * 4096) for p in (0, 2, 5)] == [False, False, True]


@pytest.mark.parametrize(
    ("before", "inside", "apart"),
    [
        (PINNED, "", False),
        (f"pin agent cpu=0\n{PINNED}", "", True),
        (f"pin agent cpu=1\n{PINNED}", "", False),
        ("pin agent cpu=0\n", "", False),
        (f"pin agent cpu=0\n{PINNED}", "pin vcpu=0 cpu=3\n", False),
        (f"pin agent cpu=0\n{PINNED}", "pin agent cpu=3\n", False),
    ],
)
def test_registers_by_pe(before: str, inside: str, apart: bool) -> None:
    assert last(f"{before}{START}{inside}stop 0\n").apart is apart


@pytest.mark.parametrize("operation", ["get 0", "log 0 off", "hdbss off", "precopy-round 0"])
def test_pages_that_become_clean_again(operation: str) -> None:
    assert last(f"{START}compare 0\nawait 0 page=1\nstop 0\n").once
    assert not last(f"{START}{operation}\nstop 0\n").once


def test_buffers_that_may_be_others() -> None:
    numbers = [s.buffers for s in cut(parse(f"{HEAD}{RUN}{RUN}hdbss off\n{RUN}"))]
    assert numbers[4] == numbers[5] == numbers[6] < numbers[7]


def pages(text: str) -> list[int]:
    (operation,) = parse(text)
    return sorted(page - 0x40000 for page in stored_pages(operation))


def test_the_pages_of_a_payload() -> None:
    base = "start 0 stride gpa=0x40000000"
    assert pages(f"{base} count=3 stride=8192 value=1") == [0, 2, 4]
    assert pages(f"{base} count=2 stride=4096 ocount=2 ostride=0x10008 value=1") == [0, 1, 16, 17]
    assert pages(f"{base} count=1 stride=0 offset=4096 value=1") == [1]
    assert pages(f"{base} count=1 stride=0 lane=512 value=1") == [1]
    assert pages("start 0 read gpa=0x40000000 count=3 stride=4096") == []
    # xorshift64 of 1: 0x40822041, 0x100041060c011441
    assert pages("start 0 random gpa=0x40000000 pages=64 count=2 seed=1 value=1") == [1]
    assert pages("start 0 random gpa=0x40000000 pages=4096 count=2 seed=1 value=1") == [65, 1089]


@pytest.mark.parametrize(
    "text", ["count=999999999 stride=1", "count=4096 ocount=4096 stride=1", "count=-1 stride=1"]
)
def test_absurd_payloads_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="line 1"):
        pages(f"start 0 stride gpa=0 {text}")
