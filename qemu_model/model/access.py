# SPDX-License-Identifier: GPL-2.0-or-later
"""Accesses of a guest, and what stage 2 and HDBSS made of them."""

from dataclasses import dataclass
from enum import Enum

from qemu_model.arch.stage2 import Leaf, WalkFault
from qemu_model.arch.syndrome import Abort
from qemu_model.model.injection import Injection


@dataclass(frozen=True, slots=True)
class Needs:
    """What an access asks of stage 2."""

    reads: bool = False
    writes: bool = False
    fetches: bool = False
    dirties: bool = False
    stage1_walk: bool = False


class Access(Enum):
    """Kinds of access by what they need of stage 2 and whether they dirty."""

    READ = Needs(reads=True)
    WRITE = Needs(writes=True, dirties=True)
    ATOMIC = Needs(reads=True, writes=True, dirties=True)
    FAILED_CAS = Needs(reads=True, writes=True)  # dirties as Choices.failed_cas_dirties says
    FETCH = Needs(fetches=True)
    STAGE1_UPDATE = Needs(reads=True, writes=True, dirties=True, stage1_walk=True)
    # AT and cache maintenance: writable-clean grants, nothing is updated (R_RKMHW)
    PROBE_WRITE = Needs(writes=True)


@dataclass(frozen=True, slots=True)
class Append:
    """One entry that was written, with the fields of a trace's APPEND record."""

    ipa: int
    entry: int
    slot_pa: int
    descriptor_pa: int
    before: int
    after: int
    index: int
    cas_lost: bool = False


@dataclass(frozen=True, slots=True)
class Injected:
    """An injection that was met, with the fields of a trace's INJECT record."""

    number: int
    injection: Injection
    ipa: int
    hdbssprod: int
    """HDBSSPROD_EL2 after it."""
    descriptor_pa: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A dirty update whose entry was lost, with the fields of a trace's LOST record."""

    ipa: int
    descriptor_pa: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class LateFsc:
    """A late HDBSSPROD_EL2.FSC was set; the register then."""

    hdbssprod: int


@dataclass(frozen=True, slots=True)
class Unwritable:
    """An entry could not be written: the slot is not in memory, or SZ is reserved."""

    slot_pa: int
    hdbssbr: int
    sz_reserved: bool


Told = Append | Injected | Lost | LateFsc | Unwritable
"""What happened in the course of an access, in its order."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The access was translated and may be performed; ``leaf`` is None without stage 2."""

    leaf: Leaf | None
    told: tuple[Told, ...] = ()

    @property
    def appended(self) -> tuple[Append, ...]:
        """The entries that were written."""
        return tuple(what for what in self.told if isinstance(what, Append))


@dataclass(frozen=True, slots=True)
class Aborted:
    """The access took an abort to EL2.

    ``refused`` says that only HDBSS stood in the way (R_STJMN).  ``leaf`` is None if
    the walk itself failed, then ``walk_fault`` tells how.
    """

    abort: Abort
    leaf: Leaf | None
    refused: bool = False
    walk_fault: WalkFault | None = None
    told: tuple[Told, ...] = ()

    @property
    def appended(self) -> tuple[Append, ...]:
        """The entries that were written."""
        return tuple(what for what in self.told if isinstance(what, Append))

    @property
    def write_failed(self) -> bool:
        """Whether it is the precise report of a failed HDBSS write."""
        return self.abort.hdbssf and not self.refused


Outcome = Completed | Aborted


class Undefined(Exception):
    """The register access is UNDEFINED at this exception level."""


class TrappedToEl3(Exception):
    """The register access traps to EL3 with EC 0x18: SCR_EL3.HDBSSEn is 0."""


class RetryLimit(Exception):
    """The descriptor changed under the access ``pe.RETRY_LIMIT`` times."""
