# SPDX-License-Identifier: GPL-2.0-or-later
"""What the architecture leaves open, as one explicit, frozen object.

Names C1..C15 are those of the digest, section 13.  The defaults are what the
published pseudocode does, or the plainest choice where it is silent.

Not here, because no access of the model meets them: C3 (RCW instructions), C5 (stores of
tags), C6 and C7 (accesses in several parts, or not aligned: one ``Access`` is one page), C8
(a failed STXR), C16 (tables of stage 1 that are dirtied without an update).  Of C17 the
literal reading is taken: AT needs no update, so it is not refused.  That the other pages of
a contiguous group may become dirty without entries (R_JKCXG) is not modelled, nor are
choices that concern stage 1 descriptors only, or FEAT_HACDBS.

As text, choices are ``NAME=VALUE,NAME=VALUE``: numbers, ``yes`` and ``no``, or the
value of an enumeration.
"""

import random
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from qemu_model.errors import UsageError

COUNT_MAX = 1 << 18
"""The entries of the largest buffer: no count of slots or updates means more."""


class Report(Enum):
    """How a fault of an HDBSS write itself is told to software."""

    PRECISE = "precise"
    """A: a synchronous abort of the access, with HDBSSF."""
    FSC = "fsc"
    """B: HDBSSPROD_EL2.FSC."""


class Visibility(Enum):
    """When software can see what a PE has appended (C14)."""

    AT_ONCE = "at-once"
    DSB = "dsb"
    """R_CGCHP: entries reach memory at the next DSB for loads and stores of this PE, or
    when it returns to the guest.  I_XXFYP: a direct read of HDBSSPROD_EL2 shows the value
    of the last context synchronization event, without the increments of entries that were
    outstanding then (UNCONFIRMED; so only DSB and then ISB shows all)."""


class Caching(Enum):
    """When a new VTCR_EL2.{HA,HD,HDBSS} is in effect for a guest that has run before."""

    AT_ONCE = "at-once"
    LAZY = "lazy"
    """TLBs hold the old value until a TLBI of the VMID (digest 2)."""


@dataclass(frozen=True, slots=True)
class Choices:
    """One implementation out of those that are permitted.

    Counts that are negative or beyond every buffer raise ValueError.
    """

    zero_ahead: int = 0
    """C1 R_HKCCN: after an append, zero that many slots from INDEX on.  That slot
    INDEX itself counts as ahead is deduced."""

    failed_cas_dirties: bool = True
    """C2 R_TXGHB: a compare-and-swap that fails its comparison dirties a clean page."""

    unreadable_atomic_dirties: bool = False
    """C4 R_KTXCF: an atomic that faults only for lack of read permission dirties."""

    lost_cas_keeps_entry: bool = True
    """C9: the entry was appended before the descriptor's compare-and-swap, which lost;
    INDEX counts it although the walk is repeated.  If False, INDEX is taken back."""

    external_abort: Report = Report.FSC
    """C10 ~R_JHHQW: report of an External abort on an HDBSS write."""

    gpf: Report = Report.FSC
    """C11 R_LHLSD: report of a Granule Protection Fault on an HDBSS write."""

    dirty_after_external_abort: bool = False
    """C12 ~R_QNJKV: the descriptor is dirtied although its entry met an External abort."""

    aborted_update_keeps_entry: bool = True
    """C13 ~R_ZLNFF: the entry stays when the descriptor's update takes an abort."""

    fsc_delay: int = 0
    """C14 I_LMSZL: FSC is set that many dirty updates late, or at the next DSB; the
    entries of those updates are lost."""

    visibility: Visibility = Visibility.AT_ONCE
    """C14 R_CGCHP, I_XXFYP: when entries and INDEX can be seen."""

    af_with_refusal: bool = False
    """C15: AF is set although the dirty update of the same access was refused."""

    caching: Caching = Caching.AT_ONCE
    """Digest 2: VTCR_EL2 may be cached in TLBs, with HA, HD and HDBSS."""

    def __post_init__(self) -> None:
        if not (0 <= self.zero_ahead <= COUNT_MAX and 0 <= self.fsc_delay <= COUNT_MAX):
            raise ValueError(
                f"zero_ahead and fsc_delay count slots and updates: 0 or more, to {COUNT_MAX}"
            )

    def __str__(self) -> str:
        """The choices that are not the default ones, as ``choose`` reads them."""
        return ",".join(f"{name}={value}" for name, value in self.words())

    def words(self) -> tuple[tuple[str, str], ...]:
        """Names and values, as text, of the choices that are not the default ones."""
        default = Choices()
        return tuple(
            (f.name, _word(getattr(self, f.name)))
            for f in fields(self)
            if getattr(self, f.name) != getattr(default, f.name)
        )


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value.value) if isinstance(value, Enum) else str(value)


BEST = Choices()
"""The hardware that is kindest to software."""
WORST = Choices(
    zero_ahead=64,
    external_abort=Report.PRECISE,
    gpf=Report.PRECISE,
    dirty_after_external_abort=True,
    fsc_delay=3,
    visibility=Visibility.DSB,
    af_with_refusal=True,
    caching=Caching.LAZY,
)
"""The one that asks most of it; of a lost race, the entry that stays."""

FIXED = {
    "failed_cas_dirties": "QEMU asks for write permission before it compares",
    "unreadable_atomic_dirties": "QEMU tells such a fault as one of a read",
    "aborted_update_keeps_entry": "no update of a descriptor aborts on QEMU's machine",
}
"""Choices that QEMU has made for every interceptor, with the reason."""

_TRIED: dict[str, tuple[Any, ...]] = {
    "zero_ahead": (0, 1, 8, 64, 512),
    "lost_cas_keeps_entry": (True, False),
    "external_abort": tuple(Report),
    "gpf": tuple(Report),
    "dirty_after_external_abort": (True, False),
    "fsc_delay": (0, 1, 3, 100),
    "visibility": tuple(Visibility),
    "af_with_refusal": (True, False),
    "caching": tuple(Caching),
}
"""What ``random`` draws from."""


def choose(text: str, seed: int = 0) -> Choices:
    """Read ``best``, ``worst``, ``random`` (drawn with ``seed``) or NAME=VALUE,NAME=VALUE.

    Raises UsageError for names and values that are none, and for ``FIXED`` ones that differ.
    """
    match text:
        case "best" | "":
            return BEST
        case "worst":
            return WORST
        case "random":
            rng = random.Random(f"choices/{seed}")
            return Choices(**{name: rng.choice(values) for name, values in _TRIED.items()})
    chosen = BEST
    for pair in text.split(","):
        name, equals, word = pair.partition("=")
        if not equals or name not in Choices.__dataclass_fields__:
            known = ", ".join(_TRIED)
            raise UsageError(
                f"--choices {pair!r}: give best, worst, random, or NAME=VALUE of {known}"
            )
        value = _value(name, word)
        if name in FIXED and value != getattr(BEST, name):
            raise UsageError(f"--choices {pair}: {FIXED[name]}")
        try:
            chosen = replace(chosen, **{name: value})
        except ValueError as error:
            raise UsageError(f"--choices {pair}: {error}") from error
    return chosen


def _value(name: str, word: str) -> Any:
    default = getattr(BEST, name)
    values: tuple[Any, ...] = (True, False)
    if isinstance(default, Enum):
        values = tuple(type(default))
    elif not isinstance(default, bool):
        if word.isdecimal() and len(word) <= len(str(COUNT_MAX)):
            return int(word)
        raise UsageError(f"--choices {name}={word}: give a number from 0 to {COUNT_MAX}")
    for value in values:
        if _word(value) == word:
            return value
    raise UsageError(f"--choices {name}={word}: give {' or '.join(map(_word, values))}")
