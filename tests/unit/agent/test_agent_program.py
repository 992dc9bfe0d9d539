# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's program parser."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qemu_model.scenarios.catalogue import SCENARIOS
from qemu_model.scenarios.scenario import Scenario, Uapi

from .driver import Crash, drive


def parse(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    lines = drive("parse", data=data).decode().splitlines()
    numbers, rest = zip(*(line.split(" ", 1) for line in lines), strict=True)
    assert list(numbers) == [str(i + 1) for i in range(len(lines))]
    return list(rest)


def one(text: str) -> str:
    (line,) = parse(text)
    return line


def test_the_sanitizer_is_on() -> None:
    with pytest.raises(Crash, match="heap-buffer-overflow"):
        drive("read-too-far", data=b"x")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_is_understood(scenario: Scenario) -> None:
    for style in scenario.styles:
        text = scenario.program(Uapi(style, 241), 7).text
        answers = zip(text.splitlines(), parse(text), strict=True)
        assert [pair for pair in answers if pair[1].startswith("bad")] == []


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("destroy", "destroy"),
        (" \tdestroy \r", "destroy"),
        ("destroy# at once", "destroy"),
        ("vm", "vm ~dirty=0"),
        ("vm dirty=initially-set", "vm dirty=2"),
        ("log 3 off", "log slot=3 state=1"),
        ("slot 1 gpa=0x1000 pages=2 mem=alias:5 lane=7 ro log",
         "slot slot=1 gpa=4096 pages=2 mem=1283 lane=7 ro=1 log=1"),
        ("slot 0 gpa=0 pages=1 mem=memfd",
         "slot slot=0 gpa=0 pages=1 mem=2 ~lane=0 ~ro=0 ~log=0"),
        ("hdbss on order=18446744073709551615", "hdbss state=0 order=18446744073709551615"),
        ("hdbss off", "hdbss state=1 ~order=0"),
        ("check-cap cap=hdbss", "check-cap cap=18446744073709551615"),
        ("enable-cap cap=0xf1 a1=1", "enable-cap cap=241 ~flags=0 ~a0=0 a1=1 ~a2=0 ~a3=0"),
        ("pin agent cpu=1", "pin mode=0 ~vcpu=0 cpu=1"),
        ("pin vcpu=2 cpu=1", "pin ~mode=0 vcpu=2 cpu=1"),
        ("pin fifo vcpu=2 cpu=1", "pin mode=1 vcpu=2 cpu=1"),
        ("wait 0", "wait vcpu=0 ~limit=60000"),
        ("klog", "klog ~level=4"),
        ("klog level=7", "klog level=7"),
        ("hog", "hog"),
        ("unhog", "unhog"),
        ("cpu 1 off", "cpu cpu=1 state=1"),
        ("fail-alloc nth=2 order=5", "fail-alloc nth=2 order=5"),
        ("clear 0 first=64 pages=64", "clear slot=0 first=64 pages=64"),
        ("run 7 read gpa=1 count=2 stride=3",
         "run vcpu=7 kind=3 ~loops=1 ~limit=60000 ~spin=0 gpa=1 count=2 stride=3 ~ocount=1"
         " ~ostride=0 ~offset=0 ~lane=0"),
        ("start 0 random gpa=0 pages=9 count=4 seed=1 value=2 loops=0 lane=3",
         "start vcpu=0 kind=1 loops=0 ~limit=60000 ~spin=0 gpa=0 pages=9 count=4 seed=1 value=2"
         " ~offset=0 lane=3"),
        ("start 0 read spin gpa=1 count=2 stride=3 loops=9",
         "start vcpu=0 kind=3 loops=9 ~limit=60000 spin=1 gpa=1 count=2 stride=3 ~ocount=1"
         " ~ostride=0 ~offset=0 ~lane=0"),
    ],
)  # fmt: skip
def test_an_operation_gives_its_arguments(text: str, parsed: str) -> None:
    assert one(text) == parsed


@pytest.mark.parametrize("text", ["", "   ", "# a comment", "\r", "\t#", "#" * 2000])
def test_nothing_is_no_operation(text: str) -> None:
    assert one(f"{text}\n") == "empty"


STRIDE = "run 0 stride gpa=0 count=1 stride=1 value=1"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Destroy", "unknown operation"),
        ("destroyed", "unknown operation"),
        ("dest", "unknown operation"),
        ("destroy 1", "unknown word"),
        ("destroy all=1", "unknown argument"),
        ("vcpu", "argument missing"),
        ("vcpu 8", "bad positional argument"),
        ("vcpu -1", "bad positional argument"),
        ("vcpu 0x", "bad positional argument"),
        ("vcpu 1a", "bad positional argument"),
        ("vcpu 18446744073709551616", "bad positional argument"),
        ("vcpu 0x10000000000000000", "bad positional argument"),
        ("vcpu 0 1", "unknown word"),
        ("vcpu vcpu=0", "unknown argument"),
        ("vm dirty=plainer", "bad value"),
        ("vm dirty=", "bad value"),
        ("vm =", "unknown argument"),
        ("vm dirty=plain dirty=plain", "argument given twice"),
        ("slot 0 gpa=0 pages=0 mem=anon", "bad value"),
        ("slot 0 gpa=0 pages=1048577 mem=anon", "bad value"),
        ("slot 0 gpa=0 pages=1 mem=alias:", "bad value"),
        ("slot 0 gpa=0 pages=1 mem=alias:128", "bad value"),
        ("slot 0 gpa=0 pages=1 mem=anon lane=512", "bad value"),
        ("slot 0 gpa=0 pages=1 mem=anon ro ro", "argument given twice"),
        ("slot 0 gpa=0 pages=1 mem=anon ro=1", "unknown argument"),
        ("slot 0 gpa=0 pages=1", "argument missing"),
        ("slot 128 gpa=0 pages=1 mem=anon", "bad positional argument"),
        ("hdbss on", "hdbss on needs order="),
        ("hdbss", "argument missing"),
        ("pin cpu=0", "pin needs either agent or vcpu="),
        ("pin agent vcpu=0 cpu=0", "pin needs either agent or vcpu="),
        ("pin fifo cpu=0", "pin needs either agent or vcpu="),
        ("pin agents cpu=0", "bad positional argument"),
        ("check-cap cap=hdb", "bad value"),
        ("check-cap cap=4294967296", "bad value"),
        ("run 0", "argument missing"),
        ("run 0 walk", "bad positional argument"),
        ("run 0 stride gpa=0 count=1 stride=1", "argument missing"),
        ("run gpa=0 0 stride count=1 stride=1 value=1", "unknown argument"),
        (f"{STRIDE} seed=1", "unknown argument"),
        (f"{STRIDE} count=1", "argument given twice"),
        (f"{STRIDE} width=4", "width is 1 or 8"),
        (f"{STRIDE} spin=1", "unknown argument"),
        (f"{STRIDE} lane=1 offset=8", "offset= and lane= exclude each other"),
        ("run 0 stride gpa=0 count=0 stride=1 value=1", "bad value"),
        ("run 0 random gpa=0 pages=1 count=1 seed=0 value=1", "bad value"),
        ("run 0 atomic gpa=0 count=1 stride=1 how=add value=1", "bad value"),
        ("sleep ms=3600001", "bad value"),
        ("klog level=8", "bad value"),
        ("klog 7", "unknown word"),
        ("sleep ms=0 " + " " * 1020, "line too long"),
    ],
)
def test_a_mistake_is_named(text: str, why: str) -> None:
    assert one(text) == f"bad {why}"


def test_lines_are_counted_whatever_they_hold() -> None:
    assert parse("vm\n\n#\nx\n\ndestroy") == [
        "vm ~dirty=0", "empty", "empty", "bad unknown operation", "empty", "destroy",
    ]  # fmt: skip


WORDS = """
vm vcpu slot log run start stride random atomic get clear gpa= count= pages= mem= alias: on off
0 1 0x 0xffffffffffffffff 18446744073709551615 = == # ro log lane= value= how=cas
"""


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(WORDS.split())).map(
            lambda words: " ".join(words).encode())),
        max_size=30,
    )
)  # fmt: skip
def test_no_bytes_break_the_parser(lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    out = drive("parse", data=data).splitlines()
    expected = data.count(b"\n") + (not data.endswith(b"\n")) if data else 0
    assert len(out) == expected
