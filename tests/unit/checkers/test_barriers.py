# SPDX-License-Identifier: GPL-2.0-or-later
"""Late visibility in a trace: what the mirror accepts, and the barriers that are missed."""

from dataclasses import replace

import pytest

from qemu_model.arch.registers import SysReg
from qemu_model.checkers import barriers
from qemu_model.checkers.history import History
from qemu_model.checkers.mirror import check_trace
from qemu_model.model.choices import BEST, Choices, Visibility
from qemu_model.model.pe import OUTSTANDING_MAX
from qemu_model.trace import BARRIER_CONTEXT, BARRIER_DSB, Kind
from tests.unit.checkers.factory import BUFFER, append, entry, event, leave, make_run
from tests.unit.checkers.recorder import Recorder, permission_fault

IPA = 0x1_2345_6000
LATE = Choices(visibility=Visibility.DSB)
PROD = SysReg.HDBSSPROD_EL2


class Late(Recorder):
    """A PE whose entries wait for barriers, after stores to ``pages`` pages."""

    def __init__(self, pages: int = 3, choices: Choices = LATE) -> None:
        super().__init__(choices=choices)
        for page in range(pages):
            self.map(IPA + page * 0x1000)
        self.start()
        for page in range(pages):
            self.store(IPA + page * 0x1000)
        self.exit()

    def dsb(self) -> None:
        count = self.pes[0].dsb()
        if count:
            self.add(Kind.BARRIER, 0, BARRIER_DSB, count, self.pes[0].visible_prod, 0x1234)

    def isb(self) -> None:
        if self.pes[0].context_synchronize():
            self.add(Kind.BARRIER, 0, BARRIER_CONTEXT, 0, self.pes[0].visible_prod, 0x1238)


def found(late: Late) -> list[str]:
    """The rules that software broke; the mirror has nothing against the PE."""
    records = late.end()
    assert check_trace(records, LATE) == []
    return [divergence.rule.split()[0] for divergence in barriers.violations(records)]


@pytest.mark.parametrize("pages", [1, OUTSTANDING_MAX, OUTSTANDING_MAX + 3])
def test_a_drain_with_both_barriers(pages: int) -> None:
    late = Late(pages)
    late.dsb()
    late.isb()
    assert late.read(0, PROD) == pages
    late.write(0, PROD, 0)
    late.enter()
    assert found(late) == []


@pytest.mark.parametrize("pages", [1, OUTSTANDING_MAX + 3])
def test_without_a_dsb(pages: int) -> None:
    late = Late(pages)
    late.isb()
    assert late.read(0, PROD) == pages - min(pages, OUTSTANDING_MAX)
    late.write(0, PROD, 0)
    assert found(late) == ["R_CGCHP"]


def test_without_an_isb() -> None:
    late = Late()
    late.dsb()
    assert late.read(0, PROD) == 0
    late.write(0, PROD, 0)
    assert found(late) == ["I_XXFYP"]


def test_the_isb_before_the_dsb_is_none() -> None:
    late = Late()
    late.isb()
    late.dsb()
    late.write(0, PROD, 0)
    assert found(late) == ["I_XXFYP"]


def test_both_barriers_after_the_read_are_too_late() -> None:
    """Visible is everything when INDEX is reset, but what the drain went by was not."""
    late = Late()
    assert late.read(0, PROD) == 0
    late.dsb()
    late.isb()
    late.write(0, PROD, 0)
    records = late.end()
    (finding,) = barriers.violations(records)
    assert finding.rule.startswith("I_XXFYP") and finding.seen.endswith("has shown 0")


def test_who_reads_again_after_the_barriers_is_right() -> None:
    late = Late()
    late.read(0, PROD)
    late.dsb()
    late.isb()
    assert late.read(0, PROD) == 3
    late.write(0, PROD, 0)
    late.enter()
    late.exit()
    late.write(0, PROD, 0)
    assert found(late) == []


@pytest.mark.parametrize(("vector", "rules"), [(0x400, []), (0x480, ["I_XXFYP"])])
def test_who_was_told_that_the_buffer_is_full_need_not_read_index(
    vector: int, rules: list[str]
) -> None:
    late = Late()
    late.enter()
    late.store(IPA)
    late.exit(esr=permission_fault(hdbssf=True), vector=vector)
    late.read(0, PROD)
    late.dsb()
    late.isb()
    late.write(0, PROD, 0)
    assert [d.rule.split()[0] for d in barriers.violations(late.end())] == rules


def test_looking_without_taking_is_no_harm() -> None:
    late = Late()
    late.read(0, PROD)
    late.write(0, PROD, 3)  # as it is: forgets nothing
    late.dsb()
    late.isb()
    late.enter()
    assert found(late) == []


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (Kind.BARRIER, {5: 7}),  # another number of entries
        (Kind.BARRIER, {6: 2}),  # another INDEX
        (Kind.READ, {5: 0}),
    ],
)
def test_the_mirror_fires(place: Kind, change: dict[int, int]) -> None:
    late = Late()
    late.dsb()
    late.isb()
    late.read(0, PROD)
    records = late.end()
    at = next(i for i, record in enumerate(records) if record[1] == place)
    wrong = list(records[at])
    for field, value in change.items():
        wrong[field] = value
    records[at] = tuple(wrong)  # type: ignore[assignment]
    assert len(check_trace(records, LATE)) == 1


def test_a_pe_that_shows_all_at_once_is_another_one() -> None:
    late = Late()
    late.read(0, PROD)
    records = late.end()
    assert [d.rule.split()[0] for d in check_trace(records, BEST)] == ["HDBSSPROD_EL2"]
    late = Late()
    late.dsb()
    assert [d.required for d in check_trace(late.end(), BEST)] == ["no BARRIER"]


def test_only_asked_where_something_can_be_missed() -> None:
    events = [
        event(Kind.RESET, BUFFER, 0, 0),
        entry(),
        append(0, 0),
        leave(1),
        event(Kind.WRITE, int(PROD), 0, 0, 0xFFFF),
    ]
    run = make_run("vm", trace=events)
    assert barriers.check(run, History()) == []
    late = replace(run, about=replace(run.about, choices=LATE))
    assert [d.checker for d in barriers.check(late, History())] == ["barriers"]
