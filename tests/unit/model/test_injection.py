# SPDX-License-Identifier: GPL-2.0-or-later
"""Injections as text, and the events that they count."""

import pytest

from qemu_model.errors import UsageError
from qemu_model.model.choices import WORST, Choices, Report
from qemu_model.model.injection import (
    INJECTIONS_MAX,
    Event,
    Injection,
    Injector,
    Preset,
    What,
    parse,
    unknown,
)


@pytest.mark.parametrize(
    ("text", "injection"),
    [
        ("abort", Injection(What.ABORT)),
        (
            "abort,append=100,pe=1,report=precise,dirty=yes",
            Injection(What.ABORT, 100, pe=1, report=Report.PRECISE, dirty=True),
        ),
        ("abort,late=20", Injection(What.ABORT, late=20)),
        ("gpf,ipa=0x40005123", Injection(What.GPF, ipa=0x4000_5000)),
        ("cas-lost,times=3,vmid=2", Injection(What.CAS_LOST, times=3, vmid=2)),
        ("fill,append=17", Injection(What.FILL, 17)),
        ("s1ptw,refusal=2", Injection(What.S1PTW, 2)),
        ("fetch", Injection(What.FETCH)),
        ("index=last,entry=3", Injection(What.INDEX, 3, preset=Preset.LAST)),
        ("unknown", Injection(What.UNKNOWN, times=0)),
        ("unknown,reset=2,times=1,seed=9", Injection(What.UNKNOWN, 2, seed=9)),
    ],
)
def test_text(text: str, injection: Injection) -> None:
    assert parse(text) == injection
    assert parse(str(injection)) == injection
    for choices in (Choices(), WORST):
        settled = injection.settled(choices, 5)
        assert parse(str(settled)) == settled == settled.settled(Choices(), 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is none of abort, gpf,"),
        ("abord", "'abord' is none of"),
        ("abort=1", "abort has no value"),
        ("index", "give index=0"),
        ("index=513", "give index=0"),
        ("abort,entry=3", "'entry' is none of append, times, pe, vmid, ipa, report, late, dirty"),
        ("gpf,dirty=yes", "'dirty' is none of"),
        ("unknown,vmid=1", "'vmid' is none of reset, times, pe, seed"),
        ("abort,report=both", "give report=fsc or precise"),
        ("abort,dirty=1", "give dirty=no or yes"),
        ("abort,append=0", "give append= a number from 1"),
        ("abort,append=-1", "give append= a number from 1"),
        ("abort,append", "give append= a number"),
        ("abort,append=1x", "give append= a number"),
        ("abort,pe=256", "give pe= a number from 0 to 0xff"),
        ("abort,late=300000", "give late="),
        ("abort,,", "'' is none of"),
        ("cas-lost,times=0", "give times= from 1 to 60, or the access never ends"),
        ("cas-lost,append=3,times=61", "give times= from 1 to 60"),
    ],
)
def test_bad_text(text: str, words: str) -> None:
    with pytest.raises(UsageError, match="--inject") as error:
        parse(text)
    assert words in str(error.value)


def test_what_is_not_said_is_as_the_pe_chooses() -> None:
    plain = parse("abort").settled(Choices(), 1)
    assert (plain.report, plain.dirty, plain.late) == (Report.FSC, False, 0)
    worst = parse("abort").settled(WORST, 1)
    assert (worst.report, worst.dirty, worst.late) == (Report.PRECISE, True, 0)
    late = parse("abort,report=fsc").settled(WORST, 1)
    assert late.late == WORST.fsc_delay
    assert parse("gpf").settled(WORST, 1).dirty is None
    assert parse("unknown").settled(WORST, 7).seed == 7


def test_events_are_counted_by_what_they_are_about() -> None:
    def met(text: str, *events: tuple[Event, int, int, int]) -> list[bool]:
        injector = Injector((parse(text),))
        return [injector.meet(*event) is not None for event in events]

    append, other = (Event.APPEND, 0, 1, 0x5000), (Event.APPEND, 1, 2, 0x6008)
    assert met("abort,append=2", append, other, append) == [False, True, False]
    assert met("abort,append=2,times=2", append, append, append, append) == [
        False, True, True, False,
    ]  # fmt: skip
    assert met("abort,times=0", append, append, append) == [True, True, True]
    assert met("abort,pe=1", append, other) == [False, True]
    assert met("abort,vmid=2", append, other) == [False, True]
    assert met("abort,ipa=0x6ff0", append, other) == [False, True]
    refusal = (Event.REFUSAL, 0, 1, 0x5000)
    assert met("s1ptw", append, refusal) == [False, True]
    assert met("unknown", append, (Event.RESET, 3, 0, 0)) == [False, True]


def test_the_first_injection_that_is_due_wins_and_all_count() -> None:
    injector = Injector((parse("abort,append=2"), parse("gpf,append=2"), parse("gpf,append=3")))
    met = [injector.meet(Event.APPEND, 0) for _ in range(4)]
    assert [m and m[0] for m in met] == [None, 0, 2, None]


def test_too_many() -> None:
    Injector((parse("abort"),) * INJECTIONS_MAX)
    with pytest.raises(UsageError, match="17 injections"):
        Injector((parse("abort"),) * (INJECTIONS_MAX + 1))


@pytest.mark.parametrize(("sz", "capacity"), [(0, 512), (9, 1 << 18)])
def test_presets(sz: int, capacity: int) -> None:
    assert [preset.of(0x4000_0000 | sz) for preset in Preset] == [
        0, capacity - 1, capacity, 0x7FFFF,
    ]  # fmt: skip


def test_presets_of_a_reserved_size_fit_the_field() -> None:
    """As the plugin's, which writes the register."""
    assert [preset.of(0x4000_0000 | 12) for preset in Preset] == [0, 0x7FFFF, 0, 0x7FFFF]


def test_unknown_values_are_those_of_the_plugin() -> None:
    """The same numbers as in tests/plugin/host/test_inject.c."""
    assert [unknown(7, 1, 2, register) for register in range(3)] == [
        0xBF66EB24CF6E1A56, 0x194B2813E05C0035, 0x6C3E50D9840C3818,
    ]  # fmt: skip
