# SPDX-License-Identifier: GPL-2.0-or-later
"""``flushed``: runs in which a flush loses a page, and their twins in which none does."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from qemu_model.checkers import flushed
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History, build
from qemu_model.checkers.judge import judge
from qemu_model.flushes import NO_FLUSHES, Flush, FlushLog, block_of, ranges_of
from qemu_model.run import Run
from qemu_model.trace import Kind
from tests.unit.checkers.factory import (
    BUFFER,
    GPA,
    PROD,
    VTCR_OFF,
    Event,
    append,
    entry,
    event,
    leave,
    make_run,
    mark,
)

PROGRAM = """\
uapi cap=241
vm
vcpu 0
slot 0 gpa=0x40000000 pages=1024
log 0 on
start 0 stride
get 0
clear 0
slot 0 gpa=0x60000000 pages=1024
get 1
destroy
slot 0 gpa=0x70000000 pages=1024
"""
LOG, START, GET, CLEAR, MOVE, OTHER, DESTROY, AGAIN = 5, 6, 7, 8, 9, 10, 11, 12
FRAME = GPA >> 12
SLOTS = ((0, FRAME, 1024, True, True),)
N = 4


def entries(*pages: int, level: int = 3) -> array[int]:
    return array("Q", (append(page, 0, level=level)[2][1] for page in pages))


def read(index: int, pe: int = 0) -> Event:
    return event(Kind.READ, PROD, index, 0, 0xFFFF_8000, pe=pe)


def reset(pe: int = 0, value: int = 0) -> Event:
    return event(Kind.WRITE, PROD, value, value, 0xFFFF_8010, pe=pe)


def filled(pages: Sequence[int], pe: int = 0) -> list[Event]:
    return [entry(pe=pe), *(append(p, i, pe=pe) for i, p in enumerate(pages)), leave(pe=pe)]


PAGES = range(N)
PLAIN = [mark(LOG), mark(LOG, 1), *filled(PAGES), read(N), reset()]
"""BEGIN is record 1, so the MSR is the last: record len(PLAIN) + 1."""


def flush(events: Sequence[Event], *clean: int, **changes: object) -> Flush:
    """The flush whose MSR is the last WRITE of these events; ``clean`` pages stay 0."""
    msr = max(i for i, e in enumerate(events) if e[0] == Kind.WRITE) + 2
    mrs = max((i for i, e in enumerate(events) if e[0] == Kind.READ), default=-2) + 2
    made = Flush(
        number=1,
        pe=events[msr - 2][1],
        seq=msr - 1,
        seen=msr - 1,
        began=max(mrs - 1, 0),
        place="drain+0x10",
        base=BUFFER,
        index=N,
        noted=N,
        entries=entries(*PAGES),
        slots=SLOTS,
        before=((FRAME, FRAME),),
        clean=ranges_of(FRAME + page for page in sorted(clean)),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def ask(
    events: Sequence[Event],
    *flushes: Flush,
    says: Mapping[int, Sequence[str]] | None = None,
    **log: object,
) -> tuple[list[Divergence], str]:
    """Findings, and what could not be checked."""
    run, history = told(events, *flushes, says=says, **log)
    return flushed.check(run, history), history.unchecked.get("flushed", "")


def told(
    events: Sequence[Event],
    *flushes: Flush,
    says: Mapping[int, Sequence[str]] | None = None,
    **log: object,
) -> tuple[Run, History]:
    """Lines without a marker are not in the program; the markers' numbers stay theirs."""
    marked = {fields[0] >> 1 for kind, _, fields, _ in events if kind == Kind.MARK}
    lines = PROGRAM.splitlines()
    program = "".join(
        f"{line if number in marked else '#'}\n" for number, line in enumerate(lines, 1)
    )
    run = make_run(program, says, events)
    run = replace(run, flushes=FlushLog(tuple(flushes), **log))  # type: ignore[arg-type]
    return run, build(run.program, run.observations, run.trace or ())


def reported(pages: str, what: str = "reported", slot: int = 0) -> list[str]:
    return [f"pages slot={slot} what={what} list={pages}"]


def test_a_flush_whose_bits_are_set_agrees() -> None:
    assert ask(PLAIN, flush(PLAIN)) == ([], "")


def test_a_page_that_vanishes_names_its_flush() -> None:
    (found,), unchecked = ask(PLAIN, flush(PLAIN, 3))
    assert (found.checker, found.slot, found.page, unchecked) == ("flushed", 0, 3, "")
    assert found.summary.startswith("flush 1 (PE 0, at drain+0x10) lost page 3 of slot 0 (1 pages")
    assert "INDEX, which was 4" in found.required and "entry 3 of the buffer" in found.required
    assert "0 before and 0 after" in found.seen
    assert "0x40000007 0x40001007 0x40002007 0x40003007" in found.seen
    assert found.records[0].startswith("#8 PE 0 APPEND INDEX=3 ipa=0x40003000")
    assert found.records[1].startswith(f"#{len(PLAIN) + 1} PE 0 WRITE HDBSSPROD_EL2")


def test_a_bit_that_was_set_before_is_told() -> None:
    (found,), _ = ask(PLAIN, flush(PLAIN, 0))
    assert "1 before and 0 after" in found.seen


def test_long_buffers_are_shown_by_their_ends() -> None:
    pages = range(100)
    events = [*filled(pages), read(100), reset()]
    (found,), _ = ask(events, flush(events, 99, index=100, noted=100, entries=entries(*pages)))
    assert "0x40003007 .. 0x40060007" in found.seen


def test_many_flushes_are_counted_and_a_few_shown() -> None:
    events: list[Event] = []
    flushes = []
    for number in range(1, 8):
        events += [*filled(PAGES), read(N), reset()]
        flushes.append(flush(events, 1, 2, number=number))
    found, _ = ask(events, *flushes)
    assert len(found) == 4
    assert all("(2 pages in this flush, 7 such flushes)" in f.summary for f in found)


DURING = [*filled(PAGES), mark(GET), read(N), mark(GET, 1), reset()]
AROUND = [mark(GET), *filled(PAGES), read(N), reset(), mark(GET, 1)]
LATER = [*filled(PAGES), read(N), mark(GET), reset(), mark(GET, 1)]
BEFORE = [*filled(PAGES), mark(GET), mark(GET, 1), read(N), reset()]
AFTER = [*filled(PAGES), read(N), reset(), mark(GET), mark(GET, 1)]
OPEN = [*filled(PAGES), read(N), mark(GET), reset()]


@pytest.mark.parametrize("events", [DURING, AROUND, LATER, OPEN], ids=range(4))
def test_a_read_that_overlaps_may_have_taken_the_bit(events: list[Event]) -> None:
    assert ask(events, flush(events, 2), says={GET: reported("1-2")}) == ([], "")
    assert len(ask(events, flush(events, 2), says={GET: reported("0-1,3")})[0]) == 1
    assert len(ask(events, flush(events, 2), says={GET: reported("-")})[0]) == 1
    failed = {GET: ["result ret=-1 errno=14"]}
    assert ask(events, flush(events, 2), says=failed) == ([], "")


@pytest.mark.parametrize("events", [BEFORE, AFTER], ids=range(2))
def test_a_read_before_or_after_is_no_excuse(events: list[Event]) -> None:
    assert len(ask(events, flush(events, 2), says={GET: reported("1-2")})[0]) == 1


def test_without_a_beginning_the_oldest_entry_is_one() -> None:
    started = [entry(), mark(GET), append(0, 0), mark(GET, 1), *(append(p, p) for p in (1, 2, 3))]
    events = [*started, leave(), reset()]
    says = {GET: reported("2")}
    assert ask(events, flush(events, 2, noted=0), says=says) == ([], "")
    later = [mark(GET), mark(GET, 1), *filled(PAGES), reset()]
    assert len(ask(later, flush(later, 2, noted=0), says=says)[0]) == 1


def test_a_read_of_another_slot_is_no_excuse() -> None:
    events = [*filled(PAGES), mark(OTHER), read(N), mark(OTHER, 1), reset()]
    assert len(ask(events, flush(events, 2), says={OTHER: reported("2", slot=1)})[0]) == 1


def test_a_clear_takes_what_it_says() -> None:
    events = [*filled(PAGES), read(N), mark(CLEAR), reset(), mark(CLEAR, 1)]
    assert ask(events, flush(events, 2), says={CLEAR: reported("2", "cleared")}) == ([], "")
    assert len(ask(events, flush(events, 2), says={CLEAR: reported("3", "cleared")})[0]) == 1


NEW = ((0, FRAME, 1024, True, False),)


@pytest.mark.parametrize("line", [LOG, MOVE, DESTROY])
def test_a_slot_that_changes_takes_its_bitmap_along(line: int) -> None:
    events = [*filled(PAGES), read(N), mark(line), reset(), mark(line, 1)]
    assert ask(events, flush(events, 2, slots=NEW)) == ([], "")
    quiet = [mark(line), mark(line, 1), *filled(PAGES), read(N), reset()]
    assert len(ask(quiet, flush(quiet, 2, slots=NEW))[0]) == 1


def test_a_slot_that_still_has_its_bitmap_has_lost_nothing() -> None:
    """A flush in the middle of a move: the bitmap moves with the slot."""
    events = [mark(MOVE), *filled(PAGES), read(N), reset(), mark(MOVE, 1)]
    assert len(ask(events, flush(events, 2))[0]) == 1
    ending = [mark(LOG), *filled(PAGES), read(N), reset(), mark(LOG, 1)]
    assert ask(ending, flush(ending, 2)) == ([], "")
    twice = [*filled(PAGES), read(N), mark(MOVE), mark(MOVE, 1), mark(AGAIN), reset()]
    assert ask(twice, flush(twice, 2)) == ([], "")


def test_pages_without_a_bitmap_need_nothing() -> None:
    gone = flush(PLAIN, 2, slots=((0, FRAME, 1024, False, True),))
    assert ask(PLAIN, gone) == ([], "")
    assert ask(PLAIN, flush(PLAIN, 2, slots=())) == ([], "")
    assert ask(PLAIN, flush(PLAIN, 2, slots=((0, FRAME, 2, True, True),))) == ([], "")


def test_the_page_is_counted_in_its_own_slot() -> None:
    slots = tuple((*slot, True, True) for slot in ((7, FRAME + 2, 8), (3, 0, 8), (5, FRAME, 2)))
    (found,), _ = ask(PLAIN, flush(PLAIN, 3, slots=slots))
    assert (found.slot, found.page) == (7, 1)


def test_a_block_needs_each_of_its_pages() -> None:
    events = [entry(), append(0, 0, level=2), leave(), read(1), reset()]
    block = dict(index=1, noted=1, entries=entries(0, level=2))
    assert ask(events, flush(events, **block)) == ([], "")
    (found,), _ = ask(events, flush(events, *range(100, 512), **block))
    assert found.page == 100 and "412 pages" in found.summary
    assert "entry 0 of the buffer" in found.required


def test_entries_that_stay_in_the_buffer_are_not_consumed() -> None:
    kept = [*PLAIN, reset(value=3), entry(prod=3)]
    made = flush(PLAIN, 2)
    assert ask(kept, made) == ([], "")
    assert len(ask([*PLAIN, reset(value=2), entry(prod=2)], made)[0]) == 1
    assert len(ask([*PLAIN, entry()], made)[0]) == 1


@pytest.mark.parametrize(("level", "last"), [(3, 512), (2, 1023)])
def test_an_entry_that_stays_keeps_the_pages_of_its_level(level: int, last: int) -> None:
    events = [entry(), append(512, 0, level=level), leave(), read(1), reset()]
    kept = [*events, reset(value=1), entry(prod=1)]
    block = dict(index=1, noted=1, entries=entries(512, level=level))
    assert ask(kept, flush(events, 512, last, **block)) == ([], "")
    for page in (0, 511, *range(last + 1, 1024)[:1]):
        assert len(ask(kept, flush(events, page, **block))[0]) == 1
    (found,), _ = ask(kept, flush(events, 511, 512, **block))
    assert (found.page, "(1 pages" in found.summary) == (511, True)


def test_pages_are_looked_up_in_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each entry is taken apart once, not once for each page."""
    calls: list[int] = []

    def count(word: int, page_shift: int) -> tuple[int, int] | None:
        calls.append(word)
        return block_of(word, page_shift)

    monkeypatch.setattr(flushed, "block_of", count)
    pages = range(300)
    events = [*filled(pages), read(300), reset()]
    made = flush(events, *pages, index=300, noted=300, entries=entries(*pages))
    assert ask([*events, reset(value=300), entry(prod=300)], made) == ([], "")
    assert len(calls) == 300


def test_markers_of_no_line_are_not_kept() -> None:
    """A guest that executes the agent's instruction with ever other numbers."""
    foreign = [mark(line) for line in range(100, 200)]
    run, _ = told([mark(GET), *foreign, mark(GET, 1), *PLAIN], flush(PLAIN))
    _, _, marks = flushed._cases(run)
    assert set(marks) == {(GET, 0), (GET, 1), (LOG, 0), (LOG, 1)}


def test_a_buffer_that_does_not_hold_what_was_appended() -> None:
    other = flush(PLAIN, entries=entries(0, 1, 9, 3))
    (found,), unchecked = ask(PLAIN, other)
    assert "did not find in the buffer" in found.summary and unchecked == ""
    assert (found.required, found.seen) == (
        f"entry 2 of the buffer at {BUFFER:#x} is 0x40002007",
        "it is 0x40009007",
    )
    assert ask(PLAIN, replace(other, noted=2)) == (
        [],
        "1 of 1 flushes: the kernel overwrote entries whose INDEX it had not read",
    )


def test_an_index_that_software_wrote_needs_no_appends() -> None:
    events = [entry(prod=2), append(2, 2), append(3, 3), leave(), read(N), reset()]
    assert ask(events, flush(events, entries=entries(77, 78, 2, 3))) == ([], "")


def test_slots_that_an_index_jumped_over_take_no_memory() -> None:
    buffer = flushed._Buffer()
    for turn, index in enumerate((262142, 0, 100_000, 262142)):
        if index == len(buffer.entries):
            buffer.entries.append(turn)
            buffer.records.append(turn + 1)
        else:
            buffer.put(index, turn, turn + 1)
    assert len(buffer.entries) == len(buffer.records) == 1 and len(buffer.beyond) == 2
    assert buffer.below(3) == ([1, -1, -1], [2, 0, 0])
    found, records = buffer.below(262143)
    assert (found[262142], records[262142], found.count(-1)) == (3, 4, 262140)
    buffer.forget(200_000)
    assert buffer.below(262143)[0].count(-1) == 262142 and buffer.below(262143)[1] == records


def test_entries_above_an_index_that_software_wrote_are_compared() -> None:
    events = [entry(prod=2), append(2, 2), append(3, 3), leave(), read(N), reset()]
    (found,), _ = ask(events, flush(events, entries=entries(77, 78, 2, 4)))
    assert found.required.startswith("entry 3 of the buffer") and "APPEND" in found.records[0]


def test_several_flushes_until_the_symbol_returned() -> None:
    events = [*filled(PAGES), reset(), *filled(PAGES), reset(), mark(GET), mark(GET, 1), entry()]
    end = len(events) + 1
    one = flush(events[:7], 2, number=1, seen=end)
    two = flush(events[:-3], 2, number=2, seen=end)
    assert ask(events, one, two, says={GET: reported("2")}) == ([], "")
    assert len(ask(events, one, two, says={GET: reported("1")})[0]) == 2


def test_two_pes_have_flushes_of_their_own() -> None:
    events = [*filled(PAGES), entry(br=BUFFER + 0x10000, pe=1)]
    other = event(Kind.APPEND, GPA, entries(5)[0], BUFFER + 0x10000, 0, 0, 0, pe=1)
    events += [other, leave(pe=1), read(1, pe=1), read(N), reset(pe=1)]
    second = flush(events, number=2, base=BUFFER + 0x10000, index=1, noted=1, entries=entries(5))
    events += [reset()]
    first = flush(events, 3, number=1)
    (found,), unchecked = ask(events, second, first)
    assert found.summary.startswith("flush 1 (PE 0") and unchecked == ""


def test_with_a_symbol_the_window_lasts_until_it_returned() -> None:
    events = [*filled(PAGES), read(N), reset(), mark(GET), mark(GET, 1), entry()]
    at_return = flush(events[:-3], 2)
    late = replace(at_return, seen=at_return.seq + 3)
    says = {GET: reported("2")}
    assert len(ask(events, at_return, says=says)[0]) == 1
    assert ask(events, late, says=says) == ([], "")
    assert ask(events[:-1], late, says=says) == ([], "")  # the PE does nothing any more


def test_flushes_that_nobody_saw_are_counted() -> None:
    assert ask(PLAIN) == ([], "1 of 1 flushes: nobody looked at it")
    twice = [*PLAIN, *filled(PAGES), reset()]
    assert ask(twice, flush(PLAIN)) == ([], "1 of 2 flushes: nobody looked at it")
    second = flush(twice, 1, began=0)
    found, unchecked = ask(twice, second)
    assert len(found) == 1 and unchecked == "1 of 2 flushes: nobody looked at it"


def test_a_flush_that_could_not_be_seen_proves_nothing() -> None:
    blind = flush(PLAIN, error="no VM")
    assert ask(PLAIN, blind) == ([], "1 of 1 flushes: no VM")
    found, unchecked = ask(PLAIN, flush(PLAIN, 2), late=frozenset([1]))
    assert found == [] and "did not wait" in unchecked


def test_what_was_given_up_is_said() -> None:
    found, unchecked = ask(PLAIN, flush(PLAIN), absent="more than 1 MiB")
    assert (found, unchecked) == ([], "more than 1 MiB")
    assert ask(PLAIN, flush(PLAIN), cut=True)[1] == "flushes.jsonl has no end"


def test_files_of_two_runs_prove_nothing() -> None:
    for change in ({"index": 3}, {"base": BUFFER + 0x1000}):
        found, unchecked = ask(PLAIN, flush(PLAIN, 2, **change))
        assert found == []
        assert unchecked == "1 of 1 flushes: it is none of flushes.jsonl: trace record 11"


def test_a_write_of_the_same_zero_is_no_flush() -> None:
    assert ask([*PLAIN, reset(), reset()], flush(PLAIN)) == ([], "")
    resets = [*filled(PAGES), event(Kind.RESET, 0, 0, VTCR_OFF), reset()]
    assert ask(resets) == ([], "")


def test_the_verdict_says_what_was_not_checked() -> None:
    run, _ = told(PLAIN)
    assert (
        judge(replace(run, flushes=NO_FLUSHES)).skipped["flushed"] == "nobody watched the flushes"
    )
    seen = judge(replace(run, flushes=FlushLog((flush(PLAIN, 3),))))
    assert "flushed" not in seen.skipped
    assert "flushed" in {divergence.checker for divergence in seen.divergences}
    part = judge(replace(run, flushes=FlushLog()))
    assert part.skipped["flushed"] == "1 of 1 flushes: nobody looked at it"
    assert "flushed" in judge(make_run(PROGRAM, None, None)).skipped
