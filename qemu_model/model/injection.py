# SPDX-License-Identifier: GPL-2.0-or-later
"""What is made to go wrong, and when: injections as data, and what counts events for them.

As text, an injection is ``WHAT[,KEY=VALUE]..``::

    abort     External abort on the HDBSS write of an append (digest 9a)
    gpf       Granule Protection Fault on it (9b); both: report=fsc|precise late=K,
              abort also dirty=yes|no; what is not said is as in ``Choices``
    cas-lost  the descriptor's update of an append loses its race (C9)
    fill      entries as of lost races until one slot is left: the append fills the buffer
    s1ptw     a refusal is reported with S1PTW = 1
    fetch     ... as an Instruction Abort, with S1PTW = 1
    index=V   at a guest entry with HDBSS on and HDBSSPROD_EL2 = 0, INDEX becomes 0, last
              (capacity - 1), full (capacity) or max
    unknown   register contents are random when a PE leaves reset; seed=S

When: ``append=N``, ``refusal=N``, ``entry=N`` or ``reset=N``, the N-th such event (from 1),
and the ``times=M`` - 1 after it (0: all of them; the default is 1, of ``unknown`` 0).  Each try
of an access that loses its races is an append, so that ``cas-lost`` has an end: ``RACES_MAX``.
Counted are those of ``pe=P``, ``vmid=V`` and ``ipa=A`` (the page of A), of all otherwise.
"""

import re
from dataclasses import dataclass, fields, replace
from enum import Enum, IntEnum

from qemu_model.arch.registers import HDBSSPROD_INDEX, hdbss_capacity
from qemu_model.errors import UsageError
from qemu_model.model.choices import COUNT_MAX, Choices, Report

INJECTIONS_MAX = 16
RACES_MAX = 60
"""Races in a row that an access may be made to lose: after ``pe.RETRY_LIMIT`` it is given up."""
_PAGE = ~0xFFF
_MASK = (1 << 64) - 1


class Event(Enum):
    """What injections count."""

    APPEND = "append"
    REFUSAL = "refusal"
    ENTRY = "entry"
    RESET = "reset"


class What(IntEnum):
    """Kinds of injections, by the number that a trace has for them."""

    ABORT = 1
    GPF = 2
    CAS_LOST = 3
    FILL = 4
    S1PTW = 5
    FETCH = 6
    INDEX = 7
    UNKNOWN = 8

    @property
    def word(self) -> str:
        """As it is written."""
        return self.name.lower().replace("_", "-")


FAULTS = (What.ABORT, What.GPF)
"""Those by which entries are lost."""

_EVENTS = {
    What.ABORT: Event.APPEND,
    What.GPF: Event.APPEND,
    What.CAS_LOST: Event.APPEND,
    What.FILL: Event.APPEND,
    What.S1PTW: Event.REFUSAL,
    What.FETCH: Event.REFUSAL,
    What.INDEX: Event.ENTRY,
    What.UNKNOWN: Event.RESET,
}
AT_APPENDS = frozenset(what for what, event in _EVENTS.items() if event is Event.APPEND)
"""Those that meet an append, and so have an IPA."""
_WORDS = {what.word: what for what in What}
_LIMITS = {
    "at": (1, _MASK),
    "times": (0, _MASK),
    "pe": (0, 255),
    "vmid": (0, 0xFFFF),
    "ipa": (0, (1 << 56) - 1),
    "late": (0, COUNT_MAX),
    "seed": (0, _MASK),
}


class Preset(Enum):
    """An INDEX by its place in the buffer."""

    ZERO = "0"
    LAST = "last"
    FULL = "full"
    MAX = "max"

    def of(self, hdbssbr: int) -> int:
        """INDEX for the buffer that HDBSSBR_EL2 names; of a reserved SZ what fits the field."""
        capacity = hdbss_capacity(hdbssbr)
        value = {
            Preset.ZERO: 0,
            Preset.LAST: capacity - 1,
            Preset.FULL: capacity,
            Preset.MAX: HDBSSPROD_INDEX.mask,
        }[self]
        return value & HDBSSPROD_INDEX.mask


@dataclass(frozen=True, slots=True)
class Injection:
    """One injection; None where nothing was said."""

    what: What
    at: int = 1
    times: int = 1
    pe: int | None = None
    vmid: int | None = None
    ipa: int | None = None
    report: Report | None = None
    dirty: bool | None = None
    late: int | None = None
    preset: Preset | None = None
    seed: int | None = None

    @property
    def event(self) -> Event:
        """What it counts."""
        return _EVENTS[self.what]

    def settled(self, choices: Choices, seed: int) -> "Injection":
        """The same with everything said: as the PE chooses, with the run's seed."""
        result = self
        if self.what in FAULTS:
            report = choices.external_abort if self.what is What.ABORT else choices.gpf
            dirty = choices.dirty_after_external_abort if self.what is What.ABORT else None
            late = choices.fsc_delay if self.what is What.ABORT else 0
            result = replace(
                result,
                report=report if self.report is None else self.report,
                dirty=dirty if self.dirty is None else self.dirty,
                late=late if self.late is None else self.late,
            )
            if result.report is Report.PRECISE:
                result = replace(result, late=0)
        if self.what is What.UNKNOWN and self.seed is None:
            result = replace(result, seed=seed)
        return result

    def __str__(self) -> str:
        """As ``parse`` reads it."""
        head = self.what.word + (f"={self.preset.value}" if self.preset is not None else "")
        words = [head, f"{self.event.value}={self.at}", f"times={self.times}"]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("what", "at", "times", "preset") or value is None:
                continue
            if field.name == "report":
                words.append(f"report={value.value}")
            elif field.name == "dirty":
                words.append(f"dirty={'yes' if value else 'no'}")
            else:
                words.append(f"{field.name}={value:#x}" if field.name == "ipa" else
                             f"{field.name}={value}")  # fmt: skip
        return ",".join(words)


def parse(text: str) -> Injection:
    """Read an injection; raises UsageError that says what is wrong with it."""
    head, *pairs = text.split(",")
    word, equals, argument = head.partition("=")
    what = _WORDS.get(word)
    if what is None:
        raise UsageError(f"--inject {text}: {word!r} is none of {', '.join(_WORDS)}")
    values: dict[str, object] = {"times": 0 if what is What.UNKNOWN else 1}
    if what is What.INDEX:
        if argument not in [preset.value for preset in Preset]:
            raise UsageError(f"--inject {text}: give index=0, index=last, index=full or index=max")
        values["preset"] = Preset(argument)
    elif equals:
        raise UsageError(f"--inject {text}: {word} has no value")
    for pair in pairs:
        key, _, value = pair.partition("=")
        values.update([_argument(text, what, key, value)])
    if what is What.CAS_LOST and values["times"] not in range(1, RACES_MAX + 1):
        raise UsageError(
            f"--inject {text}: give times= from 1 to {RACES_MAX}, or the access never ends"
        )
    return Injection(what, **values)  # type: ignore[arg-type]


def _argument(text: str, what: What, key: str, value: str) -> tuple[str, object]:
    event = _EVENTS[what]
    keys = [event.value, "times", "pe"]
    if event is not Event.RESET:
        keys.append("vmid")
    if event in (Event.APPEND, Event.REFUSAL):
        keys.append("ipa")
    if what in FAULTS:
        keys += ["report", "late"]
    if what is What.ABORT:
        keys.append("dirty")
    if what is What.UNKNOWN:
        keys.append("seed")
    if key not in keys:
        raise UsageError(f"--inject {text}: {key!r} is none of {', '.join(keys)}")
    if key in ("report", "dirty"):
        words: dict[str, object] = {"fsc": Report.FSC, "precise": Report.PRECISE}
        if key == "dirty":
            words = {"no": False, "yes": True}
        if value not in words:
            raise UsageError(f"--inject {text}: give {key}={' or '.join(words)}")
        return key, words[value]
    field = "at" if key == event.value else key
    low, high = _LIMITS[field]
    number = -1
    if re.fullmatch("[0-9]{1,20}|0x[0-9a-fA-F]{1,16}", value):
        number = int(value, 16 if value.startswith("0x") else 10)
    if not low <= number <= high:
        raise UsageError(f"--inject {text}: give {key}= a number from {low} to {high:#x}")
    return field, number & _PAGE if key == "ipa" else number


class Injector:
    """Counts the events of one machine, and says which injection one of them meets."""

    def __init__(self, injections: tuple[Injection, ...] = ()) -> None:
        if len(injections) > INJECTIONS_MAX:
            raise UsageError(f"{len(injections)} injections are more than {INJECTIONS_MAX}")
        self.injections = injections
        self._seen = [0] * len(injections)

    def meet(
        self, event: Event, pe: int, vmid: int = 0, ipa: int = 0
    ) -> tuple[int, Injection] | None:
        """The first injection that is due at this event, with its number."""
        found = None
        for number, injection in enumerate(self.injections):
            if injection.event is not event or injection.pe not in (None, pe):
                continue
            if injection.vmid not in (None, vmid) or injection.ipa not in (None, ipa & _PAGE):
                continue
            self._seen[number] += 1
            past = self._seen[number] - injection.at
            if found is None and past >= 0 and (not injection.times or past < injection.times):
                found = number, injection
        return found


def unknown(seed: int, pe: int, reset: int, register: int) -> int:
    """64 bits that a register may hold after the PE's reset number ``reset`` (splitmix64)."""
    state = seed + 0x9E37_79B9_7F4A_7C15 * (1 + register + 8 * reset + (pe << 32)) & _MASK
    state = (state ^ state >> 30) * 0xBF58_476D_1CE4_E5B9 & _MASK
    state = (state ^ state >> 27) * 0x94D0_49BB_1331_11EB & _MASK
    return state ^ state >> 31
