# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's program as text and back."""

import pytest

from qemu_model.errors import UsageError
from qemu_model.program import Program, Reach, parse
from qemu_model.scenarios.catalogue import SCENARIOS, select
from qemu_model.scenarios.scenario import Scenario, Uapi


def test_an_operation_is_one_line_of_words() -> None:
    program = Program()
    line = program.add("slot", 1, gpa="0x1000", pages=2, mem="anon", ro=True, lane=None)
    assert (line, program.text) == (1, "slot 1 gpa=0x1000 pages=2 mem=anon ro\n")
    (operation,) = program
    assert (operation.name, operation.words, operation.subject()) == ("slot", ("1", "ro"), 1)
    assert operation.number("gpa") == 0x1000
    assert operation.number("lane", 7) == 7


def test_expectations_and_conditions_travel_as_comments() -> None:
    program = Program()
    program.comment("what it is for")
    program.add("hdbss", "on", order=12, expect="ret=-1 errno=EINVAL")
    program.reaches("entries>=600", "lateness<=1", "levels=3")
    again = parse(program.text)
    assert again.operations == program.operations
    assert again.operations[0].line == 2
    assert again.operations[0].expect == {"ret": "-1", "errno": "EINVAL"}
    assert [str(reach) for reach in again.reach] == ["entries>=600", "lateness<=1", "levels=3"]


@pytest.mark.parametrize(
    ("relation", "value", "holds"),
    [(">=", 4, False), (">=", 5, True), ("<=", 5, True), ("<=", 6, False), ("=", 6, False)],
)
def test_a_condition_is_a_relation_to_a_number(relation: str, value: int, holds: bool) -> None:
    assert Reach("entries", relation, 5).holds(value) is holds


@pytest.mark.parametrize("text", ["# reach entries", "# reach entries>600", "x # expect errno"])
def test_a_comment_that_is_no_expectation_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="line 1"):
        parse(text)


@pytest.mark.parametrize("text", ["get", "get x", "slot 0 gpa=nowhere"])
def test_an_argument_that_is_missing_or_no_number_is_refused(text: str) -> None:
    (operation,) = parse(text)
    with pytest.raises(UsageError, match="line 1"):
        operation.number("gpa") if "gpa" in text else operation.subject()


DEMANDED = {
    *("bitmap.stride", "bitmap.random", "bitmap.manual-protect", "bitmap.initially-set"),
    *("bitmap.two-slots", "buffer.orders", "buffer.full"),
    *("flush.put", "flush.request", "flush.fault"),
    *("uapi.matrix", "uapi.nvhe", "uapi.no-feature"),
    *("smp.two-vcpus", "smp.move", "vcpu.late"),
    *("huge.thp", "atomics", "readonly.slot", "slot.recreate"),
    *("off.pending", "off.on-again", "teardown.enabled"),
    *("migrate.precopy", "baseline.write-protect"),
}
"""What the bench has been asked for by name."""


def test_the_catalogue_has_what_was_asked_for_and_no_name_twice() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert {*names} >= DEMANDED
    assert len({*names}) == len(names)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_says_what_it_is_for_and_is_the_same_for_a_seed(scenario: Scenario) -> None:
    assert scenario.purpose and scenario.catches and "\n" not in scenario.purpose
    for style in scenario.styles:
        text = scenario.program(Uapi(style, 241), 7).text
        assert text == scenario.program(Uapi(style, 241), 7).text
        assert text.startswith("uapi cap=241\n" if style == "cap" else "uapi cap=0\n")
        assert parse(text).operations
        assert ("hdbss on" in text) <= (style == "cap")


def stores(program: Program) -> int:
    """Stores of all payloads, endless ones counted for one pass."""
    return sum(
        operation.number("count") * operation.number("ocount", 1)
        for operation in program
        if operation.name in ("run", "start") and operation.words[1] not in ("read", "exec")
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("seed", [1, 7])
def test_the_small_form_means_the_same(scenario: Scenario, seed: int) -> None:
    for style in scenario.styles:
        normal, small = (scenario.program(Uapi(style, 241), seed, form) for form in (False, True))
        assert small.text == scenario.program(Uapi(style, 241), seed, True).text
        assert {o.name for o in small} - {"compare"} == {o.name for o in normal} - {"compare"}
        assert {reach.what for reach in small.reach} <= {reach.what for reach in normal.reach}
        assert "(small form)" in small.text and "(small form)" not in normal.text
        assert stores(small) <= min(stores(normal), 2200)
        # Whatever has to overflow a buffer does it where the buffer is smallest; injections
        # fill it up without stores.
        overflows = any(r.what == "refusals" for r in small.reach)
        counts = [o.number("count") for o in small if o.name in ("run", "start")]
        assert (max(counts) > 512) == (overflows and not scenario.inject)


def test_a_seed_changes_what_is_stored_where() -> None:
    (scenario,) = select(["bitmap.random"])
    texts = {scenario.program(Uapi("cap", 241), seed).text for seed in range(5)}
    assert len(texts) == 5


def test_scenarios_are_chosen_by_name_or_glob_and_kept_in_order() -> None:
    names = [scenario.name for scenario in select(["flush.*", "bitmap.stride"])]
    assert names == ["bitmap.stride", "flush.put", "flush.request", "flush.fault"]
    assert select([]) == SCENARIOS
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


def test_a_pattern_without_a_scenario_is_refused() -> None:
    with pytest.raises(UsageError, match="hdbss list"):
        select(["bitmap.stride", "bitmap.nothing"])
