# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists of holds: what they say, and which ones cannot be."""

import re

import pytest

from qemu_model.errors import UsageError
from qemu_model.scenarios.catalogue import SCENARIOS
from qemu_model.scenarios.holds import Await, Hold, Let, Release, Step, require_order
from qemu_model.scenarios.scenario import Uapi

OPERATIONS = {"start", "get"}


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Await("get"), "all run until the agent has reported get"),
        (Await("get", nth=3), "all run until the agent has reported get (3 times)"),
        (Hold(1, at="f+0x10"), "all run until CPU 1 reaches f+0x10"),
        (
            Let(0, reach="f", pending=True),
            "CPU 0 runs alone until it reaches f with entries pending",
        ),
        (
            Let(0, reach="f", reported="get", nth=2),
            "CPU 0 runs alone until it reaches f or the agent has reported get (2 times)",
        ),
        (Let(1, steps=7), "CPU 1 runs alone until 7 instructions are done"),
        (Release(), "all are released"),
    ],
)
def test_steps_say_what_they_are(step: Step, text: str) -> None:
    assert str(step) == text


def test_good_orders() -> None:
    require_order([], 1, OPERATIONS)
    require_order([Await("start"), Await("get")], 1, OPERATIONS)
    require_order(
        [Hold(0, at="f"), Let(1, steps=3), Let(0, reported="get"), Release(), Await("get")],
        2,
        OPERATIONS,
    )


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([Release()], "step 1 .*nobody is held"),
        ([Let(0, reach="f"), Release(), Release()], "step 3 .*nobody is held"),
        ([Let(0, reach="f"), Await("get"), Release()], "step 2 .*release them"),
        ([Hold(0, at="f"), Hold(1, at="g"), Release()], "step 2 .*release them"),
        ([Hold(0, at="f")], "end with CPUs held.*after step 1"),
        ([Let(2, reach="f"), Release()], "CPUs 0 to 1"),
        ([Let(-1, reach="f"), Release()], "CPUs 0 to 1"),
        ([Let(0), Release()], "it has no end"),
        ([Let(0, reach="f", nth=0), Release()], "counts begin with 1"),
        ([Let(0, steps=-1), Release()], "counts begin with 1"),
        ([Let(0, steps=3, reach="f"), Release()], "not both"),
        ([Await("clear")], "no operation clear"),
    ],
)
def test_orders_that_cannot_be(steps: list[Step], complaint: str) -> None:
    with pytest.raises(UsageError) as raised:
        require_order(steps, 2, OPERATIONS)
    assert re.search(complaint, str(raised.value))


def test_those_of_the_catalogue_are_in_order() -> None:
    holding = [scenario for scenario in SCENARIOS if scenario.holds]
    assert len(holding) >= 6
    for scenario in holding:
        for style in scenario.styles:
            program = scenario.program(Uapi(style, 239), 1)
            require_order(scenario.holds, scenario.needs.cpus, {op.name for op in program})
