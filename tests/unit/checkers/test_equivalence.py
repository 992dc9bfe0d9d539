# SPDX-License-Identifier: GPL-2.0-or-later
"""Two equal runs, of which one is falsified: each way is found; what is legitimate is not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from qemu_model.arch.syndrome import Abort
from qemu_model.arch.syndrome import Kind as FaultKind
from qemu_model.checkers.difference import Difference
from qemu_model.checkers.equivalence import compare
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.model.injection import What
from qemu_model.model.injection import parse as injection
from qemu_model.run import Run
from qemu_model.trace import FLAG_CAS_LOST, Anomaly, Kind
from tests.unit.checkers.factory import (
    BR,
    BUFFER,
    GPA,
    PROD,
    VTCR,
    VTCR_OFF,
    Event,
    append,
    entry,
    event,
    leave,
    make_run,
    mark,
)

CPU = 1
"""Where vCPU 0 is pinned."""
V = 0x1C2140
FIRST, SECOND, FREE, STOP = 9, 12, 15, 18
"""Lines of the payloads, and of the end of the one that runs freely."""
PROGRAM = """uapi cap=300
vm
vcpu 0
pin agent cpu=0
pin fifo vcpu=0 cpu=1
slot 0 gpa=0x40000000 pages=64 mem=anon
hdbss on order=0
log 0 on
run 0 stride gpa=0x40000000 count=4 stride=4096 value=1
compare 0
get 0
run 0 stride gpa=0x40000000 count=4 stride=4096 value=2
compare 0
get 0
start 0 stride gpa=0x40000000 count=4 stride=4096 value=3 loops=0
compare 0
get 0
stop 0
compare 0
get 0
clear 0 first=0 pages=64
"""
ONE_CPU = PROGRAM.replace("fifo ", "")
NO_CPU = PROGRAM.replace("pin fifo vcpu=0 cpu=1", "pin agent cpu=0")


def write(register: int, value: int, pe: int = CPU) -> Event:
    return event(Kind.WRITE, register, value, value, 0xFFFF_8000, pe=pe)


def load(base: int = BUFFER, pe: int = CPU) -> list[Event]:
    return [write(BR, base, pe), write(PROD, 0, pe), write(V, VTCR, pe), entry(base, pe=pe)]


def unload(index: int = 0, pe: int = CPU) -> list[Event]:
    drained = [write(PROD, 0, pe)] if index else []
    return [
        leave(index, pe),
        *drained,
        write(V, VTCR_OFF, pe),
        write(BR, 0, pe),
        write(PROD, 0, pe),
    ]


def refuse(page: int, *, pe: int = CPU, hdbssf: bool = True, level: int = 3) -> Event:
    esr = Abort(False, FaultKind.PERMISSION, level, wnr=True, hdbssf=hdbssf).esr
    return event(Kind.REFUSE, GPA + page * 4096, esr, 4, 0x4700_0000, 0x743, BUFFER, pe=pe)


def entries(*pages: int, pe: int = CPU) -> list[Event]:
    return [append(page, index, pe=pe) for index, page in enumerate(pages)]


def inject(what: What, page: int, number: int = 1) -> Event:
    return event(Kind.INJECT, what, GPA + page * 4096, number, 0, pe=CPU)


def pages(what: str, numbers: str) -> str:
    return f"pages slot=0 what={what} list={numbers}"


RESULT = "result ret=0 errno=0 exit=door"


def default_lines() -> dict[int, list[Event]]:
    return {
        FIRST: [*load(), inject(What.FILL, 0), inject(What.CAS_LOST, 1), *unload()],
        SECOND: [*load(), *entries(0, 1), refuse(2), write(PROD, 0), *entries(2, 3), *unload(2)],
        FREE: [*load(), *entries(0, 1, 2, 3)],
        FREE + 2: [*entries(1, 2)],
        STOP: [*unload(2)],
    }


def default_says() -> dict[int, list[str]]:
    return {
        line: [pages(what, "0-3"), RESULT]
        for line, what in (
            (10, "changed"), (11, "reported"), (13, "changed"), (14, "reported"),
            (16, "changed"), (17, "reported"), (19, "changed"), (20, "reported"), (21, "cleared"),
        )
    }  # fmt: skip


@dataclass
class Made:
    """A run to be falsified: its events by line, and what the agent says."""

    program: str = PROGRAM
    lines: dict[int, list[Event]] = field(default_factory=default_lines)
    says: dict[int, list[str]] = field(default_factory=default_says)

    def run(self) -> Run:
        events: list[Event] = []
        for line in range(1, 22):
            events += [mark(line), *self.lines.get(line, ()), mark(line, 1)]
        return make_run(self.program, self.says, events)


def difference(
    change: Callable[[Made], object], program: str = PROGRAM, swap: bool = False
) -> Difference | None:
    changed = Made(program)
    change(changed)
    runs = [Made(program).run(), changed.run()]
    if swap:
        runs.reverse()
    return compare(*runs).difference


def put(line: int, *events: Event, at: int | None = None) -> Callable[[Made], object]:
    """Insert events into a line, at its end by default."""

    def change(made: Made) -> None:
        there = made.lines.setdefault(line, [])
        where = len(there) if at is None else at
        there[where:where] = events

    return change


def take(line: int, kind: Kind, nth: int = 0) -> Callable[[Made], object]:
    """Remove the ``nth`` event of a kind from a line."""

    def change(made: Made) -> None:
        found = [at for at, one in enumerate(made.lines[line]) if one[0] == kind]
        del made.lines[line][found[nth]]

    return change


def alter(
    line: int, kind: Kind, nth: int = 0, *, pe: int | None = None, flags: int | None = None,
    fields: Mapping[int, int] | None = None,
) -> Callable[[Made], object]:  # fmt: skip
    """Change the ``nth`` event of a kind on a line."""

    def change(made: Made) -> None:
        found = [at for at, one in enumerate(made.lines[line]) if one[0] == kind]
        _, old_pe, old, old_flags = made.lines[line][found[nth]]
        new = tuple((fields or {}).get(at, value) for at, value in enumerate(old))
        made.lines[line][found[nth]] = (
            kind, old_pe if pe is None else pe, new, old_flags if flags is None else flags,
        )  # fmt: skip

    return change


def exchange(line: int, first: int, second: int) -> Callable[[Made], object]:
    """Exchange two events of a line."""

    def change(made: Made) -> None:
        there = made.lines[line]
        there[first], there[second] = there[second], there[first]

    return change


def say(line: int, *frames: str) -> Callable[[Made], object]:
    def change(made: Made) -> None:
        made.says[line] = [*frames] if any("result" in f for f in frames) else [*frames, RESULT]

    return change


def both(*changes: Callable[[Made], object]) -> Callable[[Made], object]:
    return lambda made: [change(made) for change in changes]


def test_equal_runs_are_equivalent() -> None:
    for program in (PROGRAM, ONE_CPU, NO_CPU):
        comparison = compare(Made(program).run(), Made(program).run())
        assert comparison.difference is None
        assert (comparison.exact, comparison.sets, comparison.entries) == (17, 1, 10)


IPA = GPA + 0x1000
FALSE: list[tuple[str, Callable[[Made], object], str, int]] = [
    ("an entry more in a run", put(SECOND, append(9, 2), at=9), "entries", SECOND),
    ("an entry twice in a run", put(SECOND, append(1, 2), at=9), "entries", SECOND),
    ("an entry less in a run", take(SECOND, Kind.APPEND, 3), "entries", SECOND),
    ("an entry for another page",
     alter(SECOND, Kind.APPEND, 1, fields={0: GPA + 0x5000, 1: GPA + 0x5007}), "entries", SECOND),
    ("an entry whose IPA is not the access's",
     alter(SECOND, Kind.APPEND, 1, fields={1: GPA + 0x5007}), "entries", SECOND),
    ("an entry of another level",
     alter(SECOND, Kind.APPEND, 1, fields={1: IPA | 2 << 1 | 1}), "entries", SECOND),
    ("an entry that is not valid",
     alter(SECOND, Kind.APPEND, 1, fields={1: IPA | 3 << 1}), "entries", SECOND),
    ("an entry of another PE", alter(SECOND, Kind.APPEND, 1, pe=0), "entries", SECOND),
    ("entries in another order", exchange(SECOND, 4, 5), "entries", SECOND),
    ("an entry while nothing runs", put(20, append(5, 0)), "entries", 20),
    ("an entry on the next line",
     both(take(SECOND, Kind.APPEND, 3), put(SECOND + 1, append(3, 1))), "entries", SECOND),
    ("a page more that runs freely", put(FREE, append(7, 0)), "entries", FREE),
    ("a page less that runs freely", take(FREE, Kind.APPEND, 0), "entries", FREE),
    ("another PE that runs freely", alter(FREE, Kind.APPEND, 0, pe=2), "entries", FREE),
    ("another level that runs freely",
     alter(FREE, Kind.APPEND, 0, fields={1: GPA | 2 << 1 | 1}), "entries", FREE),
    ("a refusal more", put(SECOND, refuse(3), at=9), "refusals", SECOND),
    ("no refusal", take(SECOND, Kind.REFUSE), "refusals", SECOND),
    ("a refusal for another page", alter(SECOND, Kind.REFUSE, fields={0: GPA}), "refusals", SECOND),
    ("a refusal on another PE", alter(SECOND, Kind.REFUSE, pe=0), "refusals", SECOND),
    ("a refusal without HDBSSF",
     alter(SECOND, Kind.REFUSE, fields={1: refuse(2, hdbssf=False)[2][1]}), "refusals", SECOND),
    ("a refusal at another level",
     alter(SECOND, Kind.REFUSE, fields={1: refuse(2, level=2)[2][1]}), "refusals", SECOND),
    ("a refusal of another class",
     alter(SECOND, Kind.REFUSE, fields={1: refuse(2)[2][1] - (4 << 26)}), "refusals", SECOND),
    ("another kind of fault",
     alter(SECOND, Kind.REFUSE, fields={1: refuse(2)[2][1] & ~0x3C | 0x4}), "refusals", SECOND),
    ("an injection less", take(FIRST, Kind.INJECT), "injections", FIRST),
    ("an injection more", put(SECOND, inject(What.GPF, 3), at=9), "injections", SECOND),
    ("an injection of another kind",
     alter(FIRST, Kind.INJECT, fields={0: What.ABORT}), "injections", FIRST),
    ("an injection elsewhere",
     alter(FIRST, Kind.INJECT, fields={1: GPA + 0x1000}), "injections", FIRST),
    ("another injection", alter(FIRST, Kind.INJECT, fields={2: 2}), "injections", FIRST),
    ("injections in another order", exchange(FIRST, 4, 5), "injections", FIRST),
    ("a buffer of another size",
     alter(FIRST, Kind.WRITE, fields={1: BUFFER | 1}), "registers", FIRST),
    ("no buffer", alter(FIRST, Kind.WRITE, fields={1: 0}), "registers", FIRST),
    ("another buffer in the second run",
     alter(SECOND, Kind.WRITE, fields={1: BUFFER + 0x1000}), "registers", SECOND),
    ("another VTCR_EL2",
     alter(FIRST, Kind.WRITE, 2, fields={1: VTCR | 1 << 30}), "registers", FIRST),
    ("an INDEX that is not reset",
     alter(SECOND, Kind.WRITE, 3, fields={1: 2}), "registers", SECOND),
    ("VTCR_EL2 before the buffer", exchange(SECOND, 0, 2), "registers", SECOND),
    ("switched off after the buffer went",
     exchange(SECOND, 12, 13), "registers", SECOND),
    ("registers of another PE", put(SECOND, write(PROD, 0, 2)), "registers", SECOND),
    ("registers written while nothing runs", put(10, write(V, VTCR)), "registers", 10),
    ("a write that fails", put(FREE, write(PROD, 0x10 << 26)), "registers", FREE),
    ("a second buffer that runs freely", put(FREE, write(BR, BUFFER + 0x8000)), "registers", FREE),
    ("another PE's registers that runs freely", put(FREE, write(V, VTCR, 3)), "registers", FREE),
    ("a buffer outside of RAM",
     put(SECOND, event(Kind.ANOMALY, Anomaly.BUFFER_OUTSIDE_RAM, pe=CPU)), "anomalies", SECOND),
    ("a page that is not reported", say(14, pages("reported", "0-2")), "bitmaps", 14),
    ("a page more that is reported", say(14, pages("reported", "0-3,9")), "bitmaps", 14),
    ("nothing reported", say(14), "bitmaps", 14),
    ("a page of another slot", say(14, "pages slot=1 what=reported list=0-3"), "bitmaps", 14),
    ("a page that did not change", say(13, pages("changed", "0-2")), "bitmaps", 13),
    ("a page that was not cleared", say(21, pages("cleared", "0-2")), "bitmaps", 21),
    ("a page never reported that ran freely",
     both(say(17, pages("reported", "0,2-3")), say(20, pages("reported", "0"))), "bitmaps", 20),
    ("a page never changed that ran freely",
     both(say(16, pages("changed", "0,2-3")), say(19, pages("changed", "0"))), "bitmaps", 19),
    ("another return code",
     say(14, pages("reported", "0-3"), "result ret=-1 errno=2"), "results", 14),
    ("another errno", say(8, "result ret=0 errno=22"), "results", 8),
    ("a payload that ends otherwise",
     say(SECOND, "result ret=0 errno=0 exit=mmio"), "results", SECOND),
    ("an agent that stops early", say(21, "cut"), "results", 21),
]  # fmt: skip


@pytest.mark.parametrize("swap", [False, True], ids=["other", "reference"])
@pytest.mark.parametrize(
    ("change", "what", "line"), [row[1:] for row in FALSE], ids=[row[0] for row in FALSE]
)
def test_every_falsification_is_found(
    change: Callable[[Made], object], what: str, line: int, swap: bool
) -> None:
    found = difference(change, swap=swap)
    assert found is not None
    assert (found.what, found.line) == (what, line)
    assert found.rule and found.reference != found.other


LEGITIMATE: list[tuple[str, Callable[[Made], object], str]] = [
    ("buffers elsewhere in memory", lambda made: _elsewhere(made), PROGRAM),
    ("the same load once more", put(SECOND, *unload(), *load(), at=4), PROGRAM),
    ("the same values once more", put(SECOND, write(V, VTCR), write(BR, BUFFER), at=4), PROGRAM),
    ("READ, ENTRY, EXIT and RESET",
     put(SECOND, event(Kind.READ, PROD, 2, pe=CPU), leave(2, CPU), entry(pe=CPU),
         event(Kind.RESET, pe=CPU), at=6), PROGRAM),
    ("another descriptor",
     alter(SECOND, Kind.APPEND, 1, fields={2: 8, 3: 16, 4: 1, 5: 2}), PROGRAM),
    ("an entry that lost its compare-and-swap",
     put(FREE, (*append(3, 4, pe=CPU)[:3], FLAG_CAS_LOST)), PROGRAM),
    ("freely another order", exchange(FREE, 4, 5), PROGRAM),
    ("freely once more", put(FREE, append(2, 4, pe=CPU)), PROGRAM),
    ("freely on a later line",
     both(take(FREE, Kind.APPEND, 3), put(FREE + 2, append(3, 9, pe=CPU))), PROGRAM),
    ("freely put and loaded", put(FREE, *unload(2), *load()), PROGRAM),
    ("a refusal that runs freely", put(FREE, refuse(1)), PROGRAM),
    ("reported by the next read", both(say(17, pages("reported", "0,2-3"))), PROGRAM),
    ("read before it was stored to", both(say(16), say(17)), PROGRAM),
    ("pages to protect left to the read behind", put(20, write(V, VTCR, 0)), PROGRAM),
    ("registers of the machine's end", put(21, mark(21, 1), write(V, VTCR, 0)), PROGRAM),
    ("preempted although it is SCHED_FIFO",
     both(take(SECOND, Kind.REFUSE), put(SECOND, *unload(2), *load(), at=6)), PROGRAM),
    ("preempted before the buffer was full", take(SECOND, Kind.REFUSE), ONE_CPU),
    ("refused for another page", alter(SECOND, Kind.REFUSE, fields={0: GPA}), ONE_CPU),
    ("an injection that a refusal met", put(SECOND, inject(What.S1PTW, 2), at=9), PROGRAM),
    ("an injection that runs freely", put(FREE, inject(What.FILL, 2)), PROGRAM),
    ("an injection after that", put(20, inject(What.FILL, 2)), PROGRAM),
    ("the PE of a vCPU that nobody pinned", lambda made: _moved(made), NO_CPU),
]  # fmt: skip


def _elsewhere(made: Made) -> None:
    for line, events in made.lines.items():
        made.lines[line] = [
            write(BR, BUFFER + 0x10_0000) if one == write(BR, BUFFER) else one for one in events
        ]


def _moved(made: Made) -> None:
    for line, events in made.lines.items():
        made.lines[line] = [(kind, 3, fields, flags) for kind, _, fields, flags in events]


@pytest.mark.parametrize(
    ("change", "program"), [row[1:] for row in LEGITIMATE], ids=[row[0] for row in LEGITIMATE]
)
def test_what_timing_decides_is_no_difference(
    change: Callable[[Made], object], program: str
) -> None:
    assert difference(change, program) is None


def _late(lost: int, made: Made) -> None:
    made.lines[SECOND] += [event(Kind.LOST, GPA, pe=CPU)] * lost + [event(Kind.LATE, pe=CPU)]


@pytest.mark.parametrize(("lost", "until"), [((3, 9), SECOND), ((9, 9), None)])
def test_a_late_fault_that_an_exit_shows_ends_the_comparison(
    lost: tuple[int, int], until: int | None
) -> None:
    reference, other = Made(), Made()
    for made, count in zip((reference, other), lost, strict=True):
        _late(count, made)
    other.says[14] = [pages("reported", "0-2"), RESULT]  # a difference behind it
    found = compare(reference.run(), other.run())
    assert found.until == until and (found.difference is None) == (until is not None)
    take(FIRST, Kind.INJECT)(other)  # and one before it
    assert compare(reference.run(), other.run()).difference is not None


def test_kinds_of_refusals_count_even_where_their_places_do_not() -> None:
    esr = refuse(2, hdbssf=False)[2][1]
    found = difference(alter(SECOND, Kind.REFUSE, fields={1: esr}), ONE_CPU)
    assert found is not None and found.what == "refusals"


@pytest.mark.parametrize(("program", "same"), [(PROGRAM, False), (ONE_CPU, True)])
def test_an_index_that_is_put_back_is_exact_where_nothing_preempts(
    program: str, same: bool
) -> None:
    runs = []
    for index in (2, 3):
        made = Made(program)
        put(SECOND, write(PROD, index), write(PROD, 0), at=4)(made)
        runs.append(made.run())
    assert (compare(*runs).difference is None) is same


def test_the_first_difference_is_explained_with_the_records_around_it() -> None:
    change = alter(SECOND, Kind.APPEND, 1, fields={0: GPA + 0x5000, 1: GPA + 0x5007})
    found = difference(both(change, say(14)))
    assert found is not None
    assert found.reference == "number 2 of 4: PE 1 IPA 0x40001000 level 3 entry 0x40001007"
    assert found.other == "number 2 of 4: PE 1 IPA 0x40005000 level 3 entry 0x40005007"
    for records, ipa in ((found.reference_records, "1000"), (found.other_records, "5000")):
        assert len(records) == 7
        (marked,) = [text for text in records if text.startswith("> ")]
        assert f"APPEND INDEX=1 ipa=0x4000{ipa}" in marked


def test_a_missing_entry_is_shown_where_the_others_end() -> None:
    found = difference(take(SECOND, Kind.APPEND, 3))
    assert found is not None
    assert (found.reference[:13], found.other) == ("number 4 of 4", "3, no more")
    assert any("APPEND" in text for text in found.other_records)


def test_what_is_there_instead_is_shown_where_the_order_is_free() -> None:
    change = alter(FREE, Kind.APPEND, 2, fields={0: GPA + 0x7000, 1: GPA + 0x7007})
    found = difference(change)
    assert found is not None
    lost = "PE 1 IPA 0x40002000 level 3 entry 0x40002007"
    wild = "IPA 0x40007000 level 3 entry 0x40007007"
    # Line 17 has an entry for that page too, so that the wild one is all that differs.
    assert (found.reference, found.other) == (f"{wild}: none", f"{wild}: yes")
    found = difference(both(change, take(FREE + 2, Kind.APPEND, 1)))
    assert found is not None
    assert (found.reference, found.other) == (f"{lost}: yes", f"{lost}: none, but {wild}")
    assert any(r.startswith("> ") and "ipa=0x40007000" in r for r in found.other_records)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (make_run(PROGRAM.replace("count=4", "count=5", 1), {}, ()), "--small"),
        (make_run(PROGRAM, {}, None), "no trace"),
    ],
)
def test_runs_that_cannot_be_compared(other: Run, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compare(Made().run(), other)


def test_runs_of_two_scenarios() -> None:
    run = Made().run()
    other = replace(run, about=replace(run.about, scenario="other"))
    with pytest.raises(UsageError, match=r"by-hand and other"):
        compare(run, other)


def test_runs_with_other_injections() -> None:
    run = Made().run()
    other = replace(run, about=replace(run.about, injections=(injection("fill,append=3"),)))
    with pytest.raises(UsageError, match=r"--inject"):
        compare(run, other)


def test_runs_without_a_trace() -> None:
    runs: Sequence[Run] = [make_run(PROGRAM, default_says(), None) for _ in range(2)]
    assert compare(*runs).difference is None
    other = make_run(PROGRAM, default_says() | {14: [RESULT]}, None)
    found = compare(runs[0], other).difference
    assert found is not None and (found.what, found.reference_records) == ("bitmaps", ())


def test_a_line_that_tells_of_too_many_pages() -> None:
    made = Made()
    made.says[14] = [pages("reported", "0-9999999999"), RESULT]
    with pytest.raises(InfrastructureError, match="cannot be trusted"):
        compare(made.run(), made.run())
