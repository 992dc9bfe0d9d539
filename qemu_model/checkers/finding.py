# SPDX-License-Identifier: GPL-2.0-or-later
"""A finding about the kernel under test, in the form that every report prints."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Divergence:
    """What a checker saw that must not be.

    ``page`` counts pages inside ``slot``; ``round`` counts reads of the log of that
    slot, from 1.  ``rule`` is a rule id of the Arm ARM, a KVM rule or an invariant.
    ``records`` are the last trace records that tell how it came to this, in words.
    """

    checker: str
    summary: str
    rule: str
    required: str
    seen: str
    slot: int | None = None
    page: int | None = None
    round: int | None = None
    records: tuple[str, ...] = ()
