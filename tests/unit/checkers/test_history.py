# SPDX-License-Identifier: GPL-2.0-or-later
"""What a hostile kernel can make a history of: sets told again and again, endless blocks."""

from random import Random

import pytest

from qemu_model.checkers.history import build
from qemu_model.errors import InfrastructureError
from qemu_model.model.dirtylog import SlotLog
from tests.unit.checkers.factory import GPA, Event, append, make_run, mark

PROGRAM = """\
vm
slot 0 gpa=0x40000000 pages=65536 log
get 0
get 0
"""
GET, AGAIN = 3, 4
PAGES = 65536


def reported(text: str, what: str = "reported") -> str:
    return f"pages slot=0 what={what} list={text}"


def test_the_parts_of_a_set_are_put_together() -> None:
    run = make_run(PROGRAM, {GET: [reported("0-2"), reported("3,9"), reported("10-11")]})
    assert build(run.program, run.observations, ()).figures()["reported"] == 7


@pytest.mark.parametrize("again", ["0-65535", "65535"])
def test_a_set_that_is_told_again_is_no_observation(
    monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    run = make_run(PROGRAM, {GET: [reported("0-65535"), reported(again)]})
    monkeypatch.setattr("qemu_model.checkers.history.members", None)  # nothing is expanded
    with pytest.raises(InfrastructureError, match="cannot be trusted: line 3: pages from"):
        build(run.program, run.observations, ())


@pytest.mark.parametrize("phase", [0, 1])
def test_a_block_that_is_appended_for_ever_counts_twice(
    monkeypatch: pytest.MonkeyPatch, phase: int
) -> None:
    calls: list[tuple[int, int]] = []

    def appended(log: SlotLog, line: int, pages: range, seq: int) -> None:
        calls.append((len(pages), seq))

    monkeypatch.setattr(SlotLog, "appended", appended)
    events = [mark(GET, phase), *(append(0, i, level=1) for i in range(100)), append(7, 100)]
    run = make_run(PROGRAM, trace=events)
    build(run.program, run.observations, run.trace or ())
    assert calls == [(PAGES, 3), (PAGES, 102), (1, 103)]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_left_out_changes_nothing(seed: int) -> None:
    """Twin: a SlotLog that was told of each append."""
    random = Random(seed)
    events: list[Event] = [mark(GET)]
    each = SlotLog(0, GPA, PAGES)
    each.set_logging(2, True)
    for seq in range(3, 30):
        level = random.choice((1, 2, 2, 3))
        page, size = random.randrange(1500), 512 ** (3 - level)
        events.append(append(page, 0, level=level))
        first = page // size * size
        each.appended(GET, range(first, min(first + size, PAGES)), seq)
    for line in (GET, AGAIN):
        each.read(line, frozenset([600]), False)
    says = {GET: [reported("600")], AGAIN: [reported("600")]}
    run = make_run(PROGRAM, says, events)
    (log,) = build(run.program, run.observations, run.trace or ()).slots
    assert log.lost() == each.lost() != []
