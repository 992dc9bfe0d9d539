# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads KTAP version 1 (Documentation/dev-tools/ktap.rst) of one level, as the conformance
program prints it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

_PLAN = re.compile(r"1\.\.([0-9]{1,6})\Z")
_RESULT = re.compile(
    r"(?P<no>not )?ok (?P<number>[0-9]{1,6}) (?P<name>[^ #]+)"
    r"(?: # (?:(?P<directive>SKIP|XFAIL)(?: |\Z))?(?P<reason>.*))?\Z"
)


class Outcome(StrEnum):
    """What became of a test."""

    PASS = "pass"
    FAIL = "fail"
    XFAIL = "xfail"
    """It failed for a reason that is known."""
    SKIP = "skip"


@dataclass(frozen=True)
class KtapTest:
    """One result line; ``reason`` says what was required and seen, or why not."""

    number: int
    name: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Report:
    """All that was printed; ``planned`` None: there was no plan."""

    planned: int | None
    tests: tuple[KtapTest, ...]
    strange: tuple[str, ...] = ()
    """Lines that are neither KTAP nor a diagnostic, in KTAP's order too."""

    @property
    def complete(self) -> bool:
        """Whether every planned test has its result, and nothing else was printed."""
        return len(self.tests) == self.planned and not self.strange

    def count(self, outcome: Outcome) -> int:
        """How many tests came out so."""
        return sum(test.outcome is outcome for test in self.tests)

    @property
    def failed(self) -> tuple[KtapTest, ...]:
        """The tests that say ``not ok``."""
        return tuple(test for test in self.tests if test.outcome is Outcome.FAIL)


def parse(lines: Iterable[str]) -> Report:
    """Read a report, be it complete or not."""
    planned: int | None = None
    tests: list[KtapTest] = []
    strange: list[str] = []
    started = False
    for line in lines:
        if not started:
            started = line == "KTAP version 1"
            if not started:
                strange.append(line)
        elif line.startswith("# "):
            continue
        elif (plan := _PLAN.match(line)) is not None and planned is None and not tests:
            planned = int(plan[1])
        elif (found := _RESULT.match(line)) is not None and planned is not None:
            test = _test(found)
            if test.number != len(tests) + 1:
                strange.append(line)
            tests.append(test)
        else:
            strange.append(line)
    return Report(planned, tuple(tests), tuple(strange))


def _test(found: re.Match[str]) -> KtapTest:
    outcome = Outcome.FAIL if found["no"] else Outcome.PASS
    if outcome is Outcome.PASS and found["directive"]:
        outcome = Outcome(found["directive"].lower())
    return KtapTest(int(found["number"]), found["name"], outcome, found["reason"] or "")
