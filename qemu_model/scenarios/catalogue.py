# SPDX-License-Identifier: GPL-2.0-or-later
"""All scenarios, and how their names are chosen on the command line."""

from collections.abc import Sequence

from qemu_model.globs import matching
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
    return matching(SCENARIOS, patterns, "scenario", "hdbss list")
