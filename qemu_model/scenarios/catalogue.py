# SPDX-License-Identifier: GPL-2.0-or-later
"""All scenarios, and how their names are chosen on the command line."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from qemu_model.errors import UsageError
from qemu_model.scenarios import (
    bitmap,
    buffer,
    fault,
    flush,
    lifetime,
    memory,
    migrate,
    races,
    smp,
    uapi,
)
from qemu_model.scenarios.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *bitmap.SCENARIOS,
    *buffer.SCENARIOS,
    *flush.SCENARIOS,
    *fault.SCENARIOS,
    *uapi.SCENARIOS,
    *smp.SCENARIOS,
    *memory.SCENARIOS,
    *lifetime.SCENARIOS,
    *migrate.SCENARIOS,
    *races.SCENARIOS,
)


def select(patterns: Sequence[str]) -> tuple[Scenario, ...]:
    """The scenarios whose names match one of the globs, in the catalogue's order.

    No pattern means all.  UsageError when a pattern matches nothing.
    """
    for pattern in patterns:
        if not any(fnmatchcase(scenario.name, pattern) for scenario in SCENARIOS):
            raise UsageError(f"no scenario matches {pattern!r}; `hdbss list` prints them all")
    if not patterns:
        return SCENARIOS
    return tuple(s for s in SCENARIOS if any(fnmatchcase(s.name, p) for p in patterns))
