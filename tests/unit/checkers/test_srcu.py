# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that are marked while nothing keeps their slots alive."""

from array import array
from dataclasses import replace

import pytest

from qemu_model.checkers import srcu
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import build
from qemu_model.checkers.judge import judge
from qemu_model.flushes import Flush, FlushLog, ranges_of
from tests.unit.checkers.factory import make_run

FRAME = 0x40000
PAGES = 4


def word(page: int, level: int = 3) -> int:
    return FRAME + page << 12 | (level & 7) << 1 | 1


FLUSH = Flush(
    number=1,
    pe=1,
    seq=20,
    seen=20,
    began=19,
    place="drain+0x10",
    base=0x4800_0000,
    index=PAGES,
    noted=PAGES,
    entries=array("Q", map(word, range(PAGES))),
    slots=((7, 0x50000, 16, True, True), (0, FRAME, 1024, True, True)),
    readers=0,
)


def frames(*pages: int) -> tuple[tuple[int, int], ...]:
    return ranges_of(FRAME + page for page in pages)


def ask(*flushes: Flush, **log: object) -> tuple[list[Divergence], str]:
    """Findings, and what could not be checked."""
    run = make_run("vm\n", None, ())
    run = replace(run, flushes=FlushLog(flushes, **log))  # type: ignore[arg-type]
    history = build(run.program, run.observations, run.trace or ())
    return srcu.check(run, history), history.unchecked.get("srcu", "")


def test_pages_that_are_marked_under_srcu_agree() -> None:
    assert ask(replace(FLUSH, readers=1), replace(FLUSH, number=2, readers=9)) == ([], "")
    assert ask() == ([], "")


def test_pages_that_are_marked_without_it_are_found() -> None:
    second = replace(FLUSH, number=2, before=frames(0, 1))
    (found,), unchecked = ask(replace(FLUSH, readers=1), second, replace(FLUSH, number=3))
    assert (found.checker, found.slot, unchecked) == ("srcu", 0, "")
    assert found.summary.startswith("flush 2 (PE 1, at drain+0x10) marked pages that ")
    assert "(2 of 3 flushes)" in found.summary
    assert f"guest frame {FRAME + 2:#x}" in found.seen


@pytest.mark.parametrize("level", [1, 2])
def test_a_block_counts_as_its_first_page(level: int) -> None:
    flush = replace(FLUSH, entries=array("Q", [word(0, level)]))
    assert len(ask(flush)[0]) == 1
    assert ask(replace(flush, before=frames(0))) == ([], "")


@pytest.mark.parametrize(
    "changes",
    [{"before": frames(*range(PAGES))}, {"clean": frames(*range(PAGES))},
     {"before": frames(0, 2), "clean": frames(1, 3)}, {"slots": ()},
     {"slots": ((0, FRAME, 1024, False, True),)}, {"slots": ((0, FRAME, 1024, True, False),)},
     {"slots": ((0, FRAME + PAGES, 1024, True, True),)}, {"entries": array("Q")},
     {"slots": ((0, FRAME - 8, 8, True, True),)},
     {"entries": array("Q", [word(0) & ~1, word(1, -2)])}],
)  # fmt: skip
def test_where_no_bit_became_1_by_this_flush_nobody_need_be_there(
    changes: dict[str, object],
) -> None:
    """What was set before, is not set, or may have been set with the slot, proves nothing."""
    assert ask(replace(FLUSH, **changes)) == ([], "")  # type: ignore[arg-type]


def test_what_could_not_be_counted_is_said() -> None:
    some = "flushes: nobody knows who was there"
    assert some in ask(replace(FLUSH, readers=-1))[1]
    assert "1 of 2 " + some in ask(replace(FLUSH, error="no RAM"), replace(FLUSH, readers=1))[1]
    late = ask(FLUSH, late=frozenset([1]))
    assert (late[0], some in late[1]) == ([], True)
    assert ask(FLUSH, no_srcu="no DWARF") == ([], "no DWARF")
    assert ask(FLUSH, absent="nobody watched")[1] == "nobody watched"
    assert len(ask(FLUSH, absent="too many flushes")[0]) == 1
    assert "no end" in ask(FLUSH, cut=True)[1]


def test_the_verdict_has_it() -> None:
    run = make_run("vm\n", None, ())
    verdict = judge(replace(run, flushes=FlushLog((FLUSH,))))
    assert "srcu" in {found.checker for found in verdict.divergences}
    assert judge(run).skipped["srcu"] == "nobody watched the flushes"
    assert "srcu" in judge(make_run("vm\n", None, None)).skipped
