# SPDX-License-Identifier: GPL-2.0-or-later
"""KTAP as the conformance program prints it, whole, cut short and spoilt."""

import pytest

from qemu_model.ktap import KtapTest, Outcome, parse

HEAD = ("KTAP version 1", "# parameters: ", "1..4")
WHOLE = (
    *HEAD,
    "ok 1 registers.id",
    "# also: INDEX: required 0x1, seen 0x0",
    "not ok 2 full.fill # refused: required 0x1, seen 0x0",
    "ok 3 leaf.16k # SKIP QEMU does not translate so",
    "ok 4 at.s12e1w # XFAIL HD is 0; PAR_EL1: required 0x0, seen 0x1",
    "# Totals: pass:1 fail:1 xfail:1 xpass:0 skip:1 error:0",
)


def test_a_whole_report() -> None:
    report = parse(WHOLE)
    assert report.complete
    assert report.tests == (
        KtapTest(1, "registers.id", Outcome.PASS),
        KtapTest(2, "full.fill", Outcome.FAIL, "refused: required 0x1, seen 0x0"),
        KtapTest(3, "leaf.16k", Outcome.SKIP, "QEMU does not translate so"),
        KtapTest(4, "at.s12e1w", Outcome.XFAIL, "HD is 0; PAR_EL1: required 0x0, seen 0x1"),
    )
    assert [test.name for test in report.failed] == ["full.fill"]
    assert [report.count(outcome) for outcome in Outcome] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "lines",
    [
        (),
        WHOLE[:-2],  # a test is missing
        WHOLE[1:],  # no version
        (*WHOLE, "ok 5 one.more"),
        (*WHOLE[:-1], "Bail out! no unexpected exception at EL2"),
        (*HEAD, "ok 1 a", "ok 3 b", "ok 3 c", "ok 4 d"),
        (*HEAD, "ok 1 a", "ok 2 b", "garbage", "ok 3 c", "ok 4 d"),
        ("KTAP version 1", "ok 1 a", "1..1"),
    ],
)
def test_reports_that_are_not_whole(lines: tuple[str, ...]) -> None:
    assert not parse(lines).complete


def test_a_failure_stays_one_whatever_follows() -> None:
    report = parse((*HEAD[:2], "1..1", "not ok 1 a # SKIP it wanted to"))
    assert report.tests[0].outcome is Outcome.FAIL
