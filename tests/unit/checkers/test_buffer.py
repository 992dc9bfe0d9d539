# SPDX-License-Identifier: GPL-2.0-or-later
"""``buffer``: runs in which a PE has memory that is not its buffer, and their twins."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from qemu_model.arch.registers import SysReg
from qemu_model.buffers import NO_BUFFERS, BufferLog, BufferLook, PageRun, Why
from qemu_model.checkers import buffer
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import build
from qemu_model.checkers.judge import judge
from qemu_model.trace import Anomaly, Kind
from tests.unit.checkers.factory import (
    BR,
    BUFFER,
    PROD,
    VTCR,
    VTCR_OFF,
    Event,
    append,
    entry,
    event,
    leave,
    make_run,
    make_trace,
)

PROGRAM = "uapi cap=241\nvm\nvcpu 0\n"
VTCR_SYS = int(SysReg.VTCR_EL2)
FRAME = BUFFER >> 12
MINE = PageRun(1, 1, 0xFFFF_FFFF, False, -1)
WRITTEN, RIGHT, OTHER, MEMORY = "I2", "I5", "I4", "HDBSSBR_EL2.BADDR"


def write(register: int, value: int, pe: int = 0) -> Event:
    return event(Kind.WRITE, register, value, value, 0xFFFF_8000, pe=pe)


def load(pe: int = 0, br: int = BUFFER) -> list[Event]:
    return [write(BR, br, pe), write(PROD, 0, pe), write(VTCR_SYS, VTCR, pe)]


def unload(pe: int = 0) -> list[Event]:
    return [write(VTCR_SYS, VTCR_OFF, pe), write(BR, 0, pe), write(PROD, 0, pe)]


def filled(count: int = 3, pe: int = 0) -> list[Event]:
    return [entry(pe=pe), *(append(page, page, pe=pe) for page in range(count)),
            leave(count, pe=pe)]  # fmt: skip


def look(why: Why, events: Sequence[Event], **changes: object) -> BufferLook:
    """A look just after these events (BEGIN is record 1)."""
    made = BufferLook(
        number=1,
        why=why,
        pe=0,
        seq=len(events) + 2,
        place="drain+0x10",
        hdbssbr=BUFFER,
        first=FRAME,
        frames=1,
        runs=(MINE,),
        owner=1,
        free=(),
        zero=0x40200,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def ask(events: Sequence[Event], *looks: BufferLook, **log: object) -> tuple[list[Divergence], str]:
    """Findings, and what could not be checked."""
    numbered = tuple(replace(look, number=n) for n, look in enumerate(looks, 1))
    run = make_run(PROGRAM, trace=make_trace(events))
    run = replace(run, buffers=BufferLog(numbered, **log))  # type: ignore[arg-type]
    history = build(run.program, run.observations, run.trace or ())
    return buffer.check(run, history), history.unchecked.get("buffer", "")


def rules(found: Sequence[Divergence]) -> list[str]:
    return [finding.rule.partition(",")[0].partition(" ")[0] for finding in found]


# --- what is written ----------------------------------------------------------


FULL = [*load(), *filled()]
OWN = look(Why.ANNOUNCED, load()[:1])
FLUSHED = [*FULL, write(PROD, 0)]
GIVEN: dict[str, dict[str, object]] = {
    "owner": {"owner": 0, "runs": (replace(MINE, refcount=0),)},
    "block": {"free": ((FRAME - 4, FRAME + 4),)},
    "zero": {"zero": FRAME},
    "use": {"runs": (replace(MINE, page_type=0xF200_0000),)},
    "mapping": {"runs": (replace(MINE, mapped=True),)},
    "compound": {"runs": (replace(MINE, head=FRAME - 1),)},
}
"""By what shows it: a buffer that was given away."""


def test_memory_that_stays_the_buffers() -> None:
    looks = [OWN, look(Why.APPENDED, FULL[:5]), look(Why.DRAIN, FULL), look(Why.FLUSH, FULL)]
    events = [*FLUSHED, *unload()]
    assert ask(events, *looks, look(Why.WITHDRAWN, FLUSHED)) == ([], "")


@pytest.mark.parametrize("how", GIVEN)
@pytest.mark.parametrize("why", [Why.APPENDED, Why.DRAIN, Why.FLUSH])
def test_entries_in_memory_that_was_given_away(why: Why, how: str) -> None:
    looks = [OWN, look(why, FULL, **GIVEN[how])]
    if why is not Why.FLUSH:
        looks.append(look(Why.FLUSH, FULL, **GIVEN[how]))
    found, unseen = ask(FLUSHED, *looks)
    assert (rules(found), unseen) == ([WRITTEN], "")
    assert "PE 0 has 3 entries" in found[0].summary and "drain+0x10" in found[0].summary
    assert len(found[0].records) == 2 and "APPEND INDEX=2" in found[0].records[1]


def test_what_is_said_of_a_page_that_nobody_holds() -> None:
    (found,), _ = ask(FLUSHED, OWN, look(Why.FLUSH, FULL, owner=0))
    assert found.seen == f"the reference count of its first page, frame {FRAME:#x}, is 0"
    assert f"[{BUFFER:#x}, {BUFFER + 4096:#x})" in found.required


def test_a_use_that_was_there_from_the_beginning_is_the_kernels_choice() -> None:
    slab = (PageRun(1, 1, 0xF500_0000, True, FRAME - 2),)
    looks = [replace(OWN, runs=slab), look(Why.DRAIN, FULL, runs=slab)]
    assert ask(FLUSHED, *looks, look(Why.FLUSH, FULL, runs=slab)) == ([], "")


def test_a_second_reference_is_none_of_ours() -> None:
    held = (replace(MINE, refcount=2),)
    assert ask(FLUSHED, OWN, look(Why.FLUSH, FULL, owner=2, runs=held)) == ([], "")


def test_entries_that_are_drained_after_the_buffer_was_taken_from_the_pe() -> None:
    events = [*FULL, *unload()[:2], write(PROD, 0)]
    found, _ = ask(events, OWN, look(Why.FLUSH, events[:-1], owner=0))
    assert rules(found) == [WRITTEN]


def test_pages_beyond_the_entries_can_still_be_written() -> None:
    """Of a buffer of two pages the first one is in use, the other one is free."""
    br = BUFFER | 1
    events = [*load(br=br), entry(br=br), append(0, 0), leave(1), write(PROD, 0)]
    looks = look(Why.FLUSH, events[:-1], hdbssbr=br, frames=2, runs=(replace(MINE, count=2),))
    found, _ = ask(events, replace(looks, free=((FRAME + 1, FRAME + 1),)))
    assert rules(found) == [RIGHT]
    assert ask(events, looks) == ([], "")


# --- the right to write -------------------------------------------------------


EMPTY = [*load(), entry(), leave()]


@pytest.mark.parametrize("how", GIVEN)
@pytest.mark.parametrize("why", [Why.WITHDRAWN, Why.END])
def test_a_buffer_is_given_away_while_hdbss_is_on(why: Why, how: str) -> None:
    found, unseen = ask([*EMPTY, *unload()][: None if why is Why.WITHDRAWN else len(EMPTY)],
                        OWN, look(why, EMPTY, **GIVEN[how]))  # fmt: skip
    assert (rules(found), unseen) == ([RIGHT], "")
    assert "has not" in found[0].summary and found[0].records


def test_drained_entries_are_not_in_the_memory_any_more() -> None:
    events = [*FLUSHED, *unload()]
    looks = [OWN, look(Why.FLUSH, FULL), look(Why.WITHDRAWN, FLUSHED, owner=0)]
    found, _ = ask(events, *looks)
    assert rules(found) == [RIGHT]


def test_a_buffer_that_no_guest_has_run_with_is_nobodys_right() -> None:
    events = [*load(), *unload()]
    assert ask(events, OWN, look(Why.WITHDRAWN, load(), owner=0)) == ([], "")


def test_a_buffer_that_was_given_away_after_hdbss_was_off() -> None:
    events = [*EMPTY, write(VTCR_SYS, VTCR_OFF)]
    assert ask(events, OWN, look(Why.END, events, owner=0)) == ([], "")


def test_a_reset_takes_the_buffer_from_the_pe() -> None:
    events = [*EMPTY, event(Kind.RESET, 0, 0, 0)]
    assert ask(events, OWN, look(Why.END, events, owner=0)) == ([], "")


def test_the_milder_finding_is_left_out_where_entries_were_written() -> None:
    looks = [OWN, look(Why.FLUSH, FULL, owner=0), look(Why.WITHDRAWN, FLUSHED, owner=0)]
    assert rules(ask([*FLUSHED, *unload()], *looks)[0]) == [WRITTEN]


def test_each_buffer_is_told_once_a_rule() -> None:
    events = [*FLUSHED, *filled(), write(PROD, 0)]
    looks = [look(Why.FLUSH, FULL, owner=0), look(Why.FLUSH, events[:-1], owner=0)]
    assert len(ask(events, OWN, *looks)[0]) == 1


# --- what needs no look -------------------------------------------------------


def test_an_entry_in_the_buffer_of_another_pe() -> None:
    events = [*load(), *load(1), entry(), entry(pe=1), append(1, 0), leave(1)]
    found, _ = ask(events, OWN)
    assert rules(found) == [OTHER] and "PE 0 wrote an entry into the buffer of PE 1" in str(found)


@pytest.mark.parametrize(
    "events",
    [
        # The other PE has it only later.
        [*load(), entry(), append(1, 0), *load(1), entry(pe=1), append(2, 1)],
        # It has only a part of it.
        [
            *(*load(br=BUFFER | 1), *load(1, BUFFER + 4096)),
            *(entry(BUFFER | 1), entry(BUFFER + 4096, pe=1), append(1, 0), append(2, 512)),
        ],
    ],
)
def test_an_entry_in_the_buffer_of_another_pe_after_entries_of_its_own(events: list[Event]) -> None:
    assert OTHER in rules(ask(events, OWN)[0])
    assert OTHER not in rules(ask(events[:-1], OWN)[0])


@pytest.mark.parametrize("moved", [[leave(0, 1)], [leave(0, 1), *unload(1)]])
def test_a_vcpu_takes_its_buffer_along(moved: list[Event]) -> None:
    events = [*load(1), entry(pe=1), *moved, *load(), entry(), append(1, 0), leave(1)]
    assert ask(events, OWN) == ([], "")


@pytest.mark.parametrize(("at", "says"), [(0, "physical address 0"), (0x9000_0000, "0x90000000")])
def test_an_entry_for_no_memory(at: int, says: str) -> None:
    events = [*load(), entry(), event(Kind.ANOMALY, Anomaly.BUFFER_OUTSIDE_RAM, at)]
    (found,), _ = ask(events, OWN)
    assert found.rule.startswith(MEMORY) and says in found.summary
    other = event(Kind.ANOMALY, Anomaly.WALK_UNSUPPORTED, at)
    assert ask([*load(), entry(), other], OWN) == ([], "")


# --- what could not be seen ---------------------------------------------------


def test_a_flush_that_nobody_looked_at_is_said() -> None:
    assert ask(FLUSHED, OWN) == ([], "1 of 2 looks: nobody looked at it")
    assert ask([*load(), write(PROD, 0)], OWN) == ([], "")


def test_a_look_with_an_error_is_said() -> None:
    bad = look(Why.FLUSH, FULL, owner=0, error="it is not in RAM")
    assert ask(FLUSHED, OWN, bad) == ([], "1 of 2 looks: it is not in RAM")


def test_a_look_that_came_late_proves_nothing() -> None:
    bad = look(Why.FLUSH, FULL, owner=0)
    found, unseen = ask(FLUSHED, OWN, bad, late=frozenset([2]))
    assert (found, unseen) == ([], "1 of 2 looks: the PE did not wait until it had been looked at")


def test_free_blocks_that_are_not_known_are_said() -> None:
    bad = look(Why.FLUSH, FULL, free=None)
    found, unseen = ask(FLUSHED, OWN, bad)
    assert found == [] and "page_type" in unseen


@pytest.mark.parametrize(("log", "says"), [({"absent": "too much"}, "too much"),
                                           ({"cut": True}, "no end")])  # fmt: skip
def test_a_record_that_is_not_whole_is_said(log: dict[str, object], says: str) -> None:
    found, unseen = ask(FLUSHED, OWN, look(Why.FLUSH, FULL, owner=0), **log)
    assert rules(found) == [WRITTEN] and says in unseen


def test_without_a_record_the_checker_is_skipped() -> None:
    run = replace(make_run(PROGRAM, trace=FLUSHED), buffers=NO_BUFFERS)
    assert judge(run).skipped["buffer"] == NO_BUFFERS.absent


def test_the_judge_asks_it() -> None:
    run = make_run(PROGRAM, trace=FLUSHED)
    log = BufferLog((OWN, look(Why.FLUSH, FULL, owner=0, number=2)))
    verdict = judge(replace(run, buffers=log))
    assert "buffer" in {finding.checker for finding in verdict.divergences}
    assert "buffer" not in verdict.skipped


@pytest.mark.parametrize("free", [(), ((FRAME + 0x50, FRAME + 0x60),)])
def test_a_kernel_that_keeps_index_with_the_vcpu(free: tuple[tuple[int, int], ...]) -> None:
    """A buffer is taken away with entries in it, and another one goes on at its own INDEX."""
    second = BUFFER + (0x100 << 12)

    def in_second(page: int, index: int) -> Event:
        kind, pe, fields, flags = append(page, index)
        return kind, pe, (*fields[:2], second + 8 * index, *fields[3:]), flags

    events = [*load(), entry(), append(1, 0), leave(1), write(BR, second), write(PROD, 5)]
    switched = look(Why.ANNOUNCED, events[:-1], hdbssbr=second, first=second >> 12)
    events += [entry(br=second, prod=5), in_second(2, 5), leave(6)]
    drained = look(Why.DRAIN, events, hdbssbr=second, first=second >> 12, free=free)
    assert ask(events, switched, drained)[0] == []
    # Of the second one, what was appended to it counts.
    lost = replace(drained, free=((second >> 12, second >> 12),))
    (found,) = ask(events, switched, lost)[0]
    assert found.rule.startswith(WRITTEN) and found.summary.startswith("PE 0 has 1 entries")


def test_a_look_that_does_not_fit_the_entries_is_survived() -> None:
    """buffers.jsonl and trace.bin of two runs: nonsense, but no crash."""
    events = [*load(), *filled()]
    announced = look(Why.ANNOUNCED, load())
    other = look(Why.DRAIN, events, first=FRAME + 0x1000)
    ask(events, announced, other)
