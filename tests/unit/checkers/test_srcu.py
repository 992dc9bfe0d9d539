# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that are marked while nothing keeps their slots alive."""

from array import array
from dataclasses import replace

from qemu_model.checkers import srcu
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import build
from qemu_model.checkers.judge import judge
from qemu_model.flushes import Flush, FlushLog
from tests.unit.checkers.factory import make_run

FRAME = 0x40000
FLUSH = Flush(
    number=1,
    pe=1,
    seq=20,
    seen=20,
    began=19,
    place="drain+0x10",
    base=0x4800_0000,
    index=1,
    noted=1,
    entries=array("Q", [0x4000_0007]),
    slots=((7, 0x50000, 16, True, True), (3, FRAME, 1024, True, True)),
)
BARE = replace(FLUSH, unprotected=((FRAME + 2, FRAME + 3), (FRAME + 9, FRAME + 9)))


def ask(*flushes: Flush, **log: object) -> tuple[list[Divergence], str]:
    """Findings, and what could not be checked."""
    run = make_run("vm\n", None, ())
    run = replace(run, flushes=FlushLog(flushes, **log))  # type: ignore[arg-type]
    history = build(run.program, run.observations, run.trace or ())
    return srcu.check(run, history), history.unchecked.get("srcu", "")


def test_pages_that_are_marked_under_srcu_agree() -> None:
    assert ask(FLUSH, replace(FLUSH, number=2)) == ([], "")
    assert ask() == ([], "")


def test_pages_that_are_marked_without_it_are_found() -> None:
    (found,), unchecked = ask(FLUSH, replace(BARE, number=2), replace(BARE, number=3))
    assert (found.checker, found.slot, unchecked) == ("srcu", 3, "")
    assert found.summary.startswith("flush 2 (PE 1, at drain+0x10) marked pages that ")
    assert "(2 of 3 flushes)" in found.summary
    assert f"guest frame {FRAME + 2:#x}" in found.seen
    (found,), _ = ask(replace(BARE, slots=()))
    assert found.slot is None


def test_what_could_not_be_judged_is_said() -> None:
    some = "flushes: nobody knows whether"
    assert f"1 of 2 {some}" in ask(FLUSH, replace(FLUSH, number=2, unjudged=1))[1]
    assert f"1 of 2 {some}" in ask(replace(FLUSH, error="no RAM"), replace(FLUSH, number=2))[1]
    late = ask(BARE, late=frozenset([1]))
    assert (late[0], f"1 of 1 {some}" in late[1]) == ([], True)
    found, unchecked = ask(replace(BARE, unjudged=1))
    assert len(found) == 1 and some in unchecked
    assert ask(BARE, no_srcu="no DWARF") == ([], "no DWARF")
    assert ask(FLUSH, absent="nobody watched")[1] == "nobody watched"
    assert len(ask(BARE, absent="too many flushes")[0]) == 1
    assert "no end" in ask(FLUSH, cut=True)[1]


def test_the_verdict_has_it() -> None:
    run = make_run("vm\n", None, ())
    verdict = judge(replace(run, flushes=FlushLog((BARE,))))
    assert "srcu" in {found.checker for found in verdict.divergences}
    assert judge(run).skipped["srcu"] == "nobody watched the flushes"
    assert "srcu" in judge(make_run("vm\n", None, None)).skipped
