# SPDX-License-Identifier: GPL-2.0-or-later
"""What the architecture leaves open, as one explicit, frozen object.

Names C1..C15 are those of the digest, section 13.  The defaults are what the
published pseudocode does, or the plainest choice where it is silent.  Choices that
concern stage 1 descriptors only, or FEAT_HACDBS, are not here.
"""

from dataclasses import dataclass
from enum import Enum


class Report(Enum):
    """How a fault of an HDBSS write itself is told to software."""

    PRECISE = "A: a synchronous abort of the access, with HDBSSF"
    FSC = "B: HDBSSPROD_EL2.FSC"


@dataclass(frozen=True, slots=True)
class Choices:
    """One implementation out of those that are permitted.

    Counts that are negative raise ValueError.
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
    """C14 I_LMSZL: FSC is set that many dirty updates late; their entries are lost."""

    entries_late: bool = False
    """C14 R_CGCHP: entries reach memory at the next DSB of this PE and not before."""

    index_late: bool = False
    """C14 I_XXFYP: a direct read of HDBSSPROD_EL2 shows the value of the last context
    synchronization event."""

    af_with_refusal: bool = False
    """C15: AF is set although the dirty update of the same access was refused."""

    def __post_init__(self) -> None:
        if self.zero_ahead < 0 or self.fsc_delay < 0:
            raise ValueError("zero_ahead and fsc_delay count slots and updates: 0 or more")
