# SPDX-License-Identifier: GPL-2.0-or-later
"""``lost``, ``drained``, ``reached`` and the figures, each with a run in which it fires."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from qemu_model.checkers import drained, lost, reached, uapi
from qemu_model.checkers.finding import Divergence
from qemu_model.checkers.history import History, build
from qemu_model.errors import InfrastructureError
from qemu_model.model.injection import What
from qemu_model.run import Run
from qemu_model.trace import FLAG_CAS_LOST, Kind
from tests.unit.checkers.factory import Event, append, entry, event, leave, make_run, mark

PROGRAM = """\
uapi cap=241
vm
vcpu 0
slot 0 gpa=0x40000000 pages=1024
log 0 on
snapshot 0
run 0 stride
compare 0
get 0
get 0
"""
RUN, COMPARE, GET, AGAIN = 7, 8, 9, 10


def changed(text: str) -> str:
    return f"pages slot=0 what=changed list={text}"


def reported(text: str) -> str:
    return f"pages slot=0 what=reported list={text}"


def told(run: Run) -> History:
    return build(run.program, run.observations, run.trace or ())


def one_round(change: str, report: str, again: str = "-", trace: Sequence[Event] = ()) -> Run:
    return make_run(
        PROGRAM,
        {COMPARE: [changed(change)], GET: [reported(report)], AGAIN: [reported(again)]},
        trace,
    )


def ask_lost(run: Run) -> list[Divergence]:
    return lost.check(run, told(run))


def test_nothing_is_lost_when_everything_changed_is_reported() -> None:
    run = one_round("0-9", "0-9")
    assert ask_lost(run) == []
    assert told(run).figures()["pages"] == 10


def test_a_changed_page_that_is_never_reported_is_lost_and_explained() -> None:
    run = one_round("0-9", "0-8", trace=[mark(RUN), append(9, 0), mark(RUN, 1)])
    (finding,) = ask_lost(run)
    assert (finding.slot, finding.page, finding.round) == (0, 9, 1)
    assert "2 reads" in finding.required and "run 0 stride" in finding.required
    assert len(finding.records) == 1 and "APPEND" in finding.records[0]
    assert told(run).figures()["lost"] == 1


def test_a_late_page_is_counted_and_not_condemned() -> None:
    run = one_round("0-9", "0-8", again="9")
    assert ask_lost(run) == []
    figures = told(run).figures()
    assert (figures["late"], figures["lateness"], figures["spurious"]) == (1, 1, 0)


def test_a_page_reported_without_a_change_is_counted_as_spurious() -> None:
    figures = told(one_round("0-9", "0-11")).figures()
    assert (figures["lost"], figures["late"], figures["spurious"]) == (0, 0, 2)


def test_a_page_lost_in_a_migration_is_lost() -> None:
    program = PROGRAM.replace("get 0\nget 0", "precopy 0\nprecopy-final 0")
    says = {AGAIN: [reported("1"), "pages slot=0 what=differs list=5"]}
    (finding,) = ask_lost(make_run(program, says))
    assert finding.page == 5
    says[AGAIN][1] = "pages slot=0 what=differs list=-"
    assert ask_lost(make_run(program, says)) == []


def test_what_a_failed_operation_says_does_not_count() -> None:
    says = {
        COMPARE: [changed("3")],
        GET: ["result ret=-1 errno=2"],
        AGAIN: ["result ret=-1 errno=2"],
    }
    assert ask_lost(make_run(PROGRAM, says)) == []


def test_pages_outside_the_slot_are_no_observation() -> None:
    with pytest.raises(InfrastructureError, match="1024-1024"):
        told(one_round("1024", "-"))


def test_a_deleted_slot_owes_nothing_and_its_successor_starts_anew() -> None:
    program = PROGRAM + "unslot 0\nslot 0 gpa=0x40000000 pages=8 log\nget 0\n"
    run = make_run(program, {COMPARE: [changed("3")], GET: [reported("-")], AGAIN: [reported("-")]})
    assert ask_lost(run) == []
    assert [slot.pages for slot in told(run).slots] == [1024, 8]


MOVED = "slot 0 gpa=0x50000000 pages=1024 log\nget 0\n"


def test_a_slot_that_moves_takes_along_what_it_owes() -> None:
    run = make_run(PROGRAM + MOVED, {COMPARE: [changed("3")]})
    (finding,) = ask_lost(run)
    assert "3 reads" in finding.required and len(told(run).slots) == 1
    run = make_run(PROGRAM + MOVED, {COMPARE: [changed("3")], 12: [reported("3")]})
    assert ask_lost(run) == []


def test_the_entry_of_a_race_that_was_lost_is_not_owed() -> None:
    """Another PE has appended for the same page, or the page is another one's now."""
    kind, pe, fields, flags = append(3, 0)
    race: Event = (kind, pe, fields, flags | FLAG_CAS_LOST)
    run = one_round("-", "-", trace=[mark(RUN), race, mark(RUN, 1)])
    assert drained.check(run, told(run)) == []
    assert told(run).figures()["entries"] == 1


def test_every_appended_entry_must_reach_a_bitmap() -> None:
    trace = [mark(RUN), append(3, 0), append(4, 1), mark(RUN, 1), mark(COMPARE), mark(GET)]
    run = one_round("3-4", "3-4", trace=trace)
    assert drained.check(run, told(run)) == []
    run = one_round("-", "3", trace=trace)
    (finding,) = drained.check(run, told(run))
    assert (finding.page, finding.slot) == (4, 0)
    assert "trace record 4" in finding.summary


def test_an_entry_for_a_block_stands_for_all_its_pages() -> None:
    trace = [entry(), mark(RUN), append(600, 0, level=2), mark(RUN, 1)]
    run = one_round("600", "512-1023", trace=trace)
    assert drained.check(run, told(run)) == []
    run = one_round("600", "600", trace=trace)
    findings = drained.check(run, told(run))
    assert findings[0].page == 512 and "511 such entries" in findings[0].summary


def test_an_entry_outside_every_logged_slot_is_owed_by_none() -> None:
    run = one_round("-", "-", trace=[mark(RUN), append(5000, 0), mark(RUN, 1)])
    assert drained.check(run, told(run)) == []


def test_an_entry_appended_during_the_last_read_is_not_due() -> None:
    run = one_round("-", "-", trace=[mark(AGAIN), append(3, 0), mark(AGAIN, 1)])
    assert drained.check(run, told(run)) == []


def test_figures_come_from_the_trace() -> None:
    trace = [
        entry(), mark(RUN), append(3, 0), append(4, 0, pe=1), leave(),
        event(Kind.REFUSE, 0x4000_0000), event(Kind.WRITE, 0x1C2360, 0), mark(RUN, 1),
    ]  # fmt: skip
    figures = told(one_round("3-4", "3-4", trace=trace)).figures()
    assert [figures[name] for name in ("entries", "refusals", "pes", "levels")] == [2, 1, 2, 3]
    mixed = [entry(), append(3, 0), append(512, 1, level=2)]
    assert told(one_round("3", "3", trace=mixed)).figures()["levels"] == -2


ENDED = "result ret=-1 errno=14 error=kvm-run"
FAULT = event(Kind.INJECT, What.ABORT, 0x4000_3000)


def failed_run(trace: Sequence[Event]) -> Run:
    """KVM_RUN fails in the first of two payloads; what both have changed is never reported."""
    program = PROGRAM + "run 0 stride\ncompare 0\nget 0\n"
    says = {RUN: [ENDED], COMPARE: [changed("3")], 12: [changed("7")]}
    return make_run(program, says, trace)


def test_what_was_lost_before_kvm_run_has_failed_is_no_silent_loss() -> None:
    run = failed_run([mark(RUN), append(3, 0), FAULT, mark(RUN, 1), mark(11), append(7, 0)])
    history = told(run)
    assert [finding.page for finding in lost.check(run, history)] == [7]
    assert history.unchecked["lost"].startswith("line 7 told userspace")
    assert [finding.page for finding in drained.check(run, told(run))] == [7]
    assert uapi.check(run, history) == []


def test_a_kvm_run_that_fails_without_a_fault_tells_nothing() -> None:
    run = failed_run([mark(RUN), append(3, 0)])
    history = told(run)
    assert [finding.page for finding in lost.check(run, history)] == [3, 7]
    (finding,) = uapi.check(run, history)
    assert "ret = -1" in finding.seen and "line 7" in finding.summary


@pytest.mark.parametrize(("trace", "findings"), [([FAULT], 0), ([], 2)])
def test_who_waits_for_a_payload_that_has_failed_waits_in_vain(
    trace: list[Event], findings: int
) -> None:
    waits = {RUN: [ENDED], 11: ["result ret=-1 errno=110"]}
    run = make_run(PROGRAM + "await 0 count=3\n", waits, trace)
    assert len(uapi.check(run, told(run))) == findings


@pytest.mark.parametrize(
    ("wanted", "seen", "ends", "findings"),
    [
        (3, 3, False, 0),
        (3, 2, False, 1),
        (3, 2, True, 0),  # the payload was ended before it had stored everything
        (0, 1, True, 1),  # but nobody may store to a page that is read-only
    ],
)
def test_a_store_that_was_dropped_is_a_finding(
    wanted: int, seen: int, ends: bool, findings: int
) -> None:
    program = f"{PROGRAM}compare 0 # expect ret=0 changed={wanted}\n"
    says = {11: [f"result ret=0 errno=0 changed={seen}"]} | ({RUN: [ENDED]} if ends else {})
    run = make_run(program, says, [FAULT] if ends else [])
    found = uapi.check(run, told(run))
    assert [f"changed = {seen}" in finding.seen for finding in found] == [True] * findings


def test_conditions_are_not_asked_of_what_somebody_else_has_injected() -> None:
    run = make_run("# reach entries>=9\n" + PROGRAM, trace=[append(3, 0)])
    foreign = replace(run, about=replace(run.about, foreign=True))
    history = told(foreign)
    assert reached.check(foreign, history) == [] and "reached" in history.unchecked
    assert len(reached.check(run, told(run))) == 1


def test_a_condition_that_does_not_hold_is_a_finding() -> None:
    run = make_run("# reach entries>=1\n" + PROGRAM, trace=[append(3, 0)])
    assert reached.check(run, told(run)) == []
    run = make_run("# reach entries>=2 nonsense=0\n" + PROGRAM, trace=[append(3, 0)])
    first, second = reached.check(run, told(run))
    assert (first.required, first.seen) == ("entries>=2", "entries is 1")
    assert "nonsense" in second.summary
