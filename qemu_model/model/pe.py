# SPDX-License-Identifier: GPL-2.0-or-later
"""A processing element with FEAT_HDBSS: the digest's sections 2 to 8 as a machine.

``PE`` acts: give it registers, a memory and an access, and it does what the
hardware may do, writing entries and descriptors; a gdbstub interceptor can thus
use it as the hardware.  Everything that is left open is a field of ``Choices``.

Assumed: Non-secure state, little-endian tables (SCTLR_EL2.EE == 0), no FEAT_S2PIE
and no FEAT_D128.  VTCR_EL2 acts at once: that it may be cached in TLBs only widens
what hardware may do.  Where the digest says UNCONFIRMED the permissive reading is
taken, and the method says so.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from qemu_model.arch import descriptor as leaf_bits
from qemu_model.arch import syndrome
from qemu_model.arch.registers import VTCR_HA, ProdFsc, SysReg, hdbss_slot, stage2_in_use
from qemu_model.arch.stage2 import Fault, Leaf, WalkFault, walk
from qemu_model.arch.syndrome import Abort
from qemu_model.model.choices import Choices, Report, Visibility
from qemu_model.model.producer import Producer

RETRY_LIMIT = 64
"""Lost compare-and-swaps after which an access gives up; hardware has no limit."""

OUTSTANDING_MAX = 64
"""Entries that a PE holds back with ``Visibility.DSB``; a further one pushes out the oldest."""


class Memory(Protocol):
    """Physical memory as the MMU sees it; words are 64 bits, addresses aligned to 8."""

    def read64(self, pa: int) -> int | None:
        """Return the word, or None where there is no memory."""

    def write64(self, pa: int, value: int) -> ProdFsc:
        """Write a word atomically; the fault of the write, ``ProdFsc.NONE`` if it worked."""

    def compare_and_swap64(self, pa: int, expected: int, new: int) -> int | None:
        """Swap if the word equals ``expected``; return the word found, None for an abort."""


@dataclass(frozen=True, slots=True)
class _Needs:
    reads: bool = False
    writes: bool = False
    fetches: bool = False
    dirties: bool = False
    stage1_walk: bool = False


class Access(Enum):
    """Kinds of access by what they need of stage 2 and whether they dirty."""

    READ = _Needs(reads=True)
    WRITE = _Needs(writes=True, dirties=True)
    ATOMIC = _Needs(reads=True, writes=True, dirties=True)
    FAILED_CAS = _Needs(reads=True, writes=True)  # dirties as Choices.failed_cas_dirties says
    FETCH = _Needs(fetches=True)
    STAGE1_UPDATE = _Needs(reads=True, writes=True, dirties=True, stage1_walk=True)
    # AT and cache maintenance: writable-clean grants, nothing is updated (R_RKMHW)
    PROBE_WRITE = _Needs(writes=True)


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
class Completed:
    """The access was translated and may be performed; ``leaf`` is None without stage 2."""

    leaf: Leaf | None
    appended: tuple[Append, ...] = ()


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
    appended: tuple[Append, ...] = ()


Outcome = Completed | Aborted


_WALK_FAULT = {
    Fault.TRANSLATION: syndrome.Kind.TRANSLATION,
    Fault.ADDRESS_SIZE: syndrome.Kind.ADDRESS_SIZE,
    Fault.EXTERNAL_ABORT: syndrome.Kind.EXTERNAL_ABORT_WALK,
}


class _Recorded(Enum):
    """How the attempt to record a dirty update ended, if the access was not stopped."""

    UPDATE = "go on with the descriptor"
    AGAIN = "evaluate the access anew"


class Undefined(Exception):
    """The register access is UNDEFINED at this exception level."""


class TrappedToEl3(Exception):
    """The register access traps to EL3 with EC 0x18: SCR_EL3.HDBSSEn is 0."""


class RetryLimit(Exception):
    """The descriptor changed under the access ``RETRY_LIMIT`` times."""


class PE:
    """One processing element.

    ``memory`` holds tables and buffer.  ``hdbssen`` is SCR_EL3.HDBSSEn; a machine
    without EL3 behaves as if it were 1.  Register contents after a Warm reset are
    UNKNOWN, so they are given as ``producer``.
    """

    def __init__(
        self,
        memory: Memory,
        choices: Choices | None = None,
        producer: Producer | None = None,
        hdbssen: bool = True,
    ) -> None:
        self.memory = memory
        self.choices = choices or Choices()
        self.producer = producer or Producer()
        self.hdbssen = hdbssen
        self.hcr = 0
        self.vttbr = 0
        self._synchronized_prod = self.producer.hdbssprod
        self._outstanding: list[tuple[int, int]] = []
        self._uncounted = 0
        self._late_fsc = ProdFsc.NONE
        self._late_updates = 0

    # --- register accesses ----------------------------------------------------

    def write(self, register: int, value: int, el: int = 2) -> int:
        """Do an MSR and return what the register then holds.

        Raises Undefined below EL2 (no nested virtualization), TrappedToEl3 for an
        HDBSS register while HDBSSEn is 0, ValueError for a register that no model has.
        """
        self._check_access(register, el)
        if register == SysReg.HCR_EL2:
            self.hcr = value
            return value
        if register == SysReg.VTTBR_EL2:
            self.vttbr = value
            return value
        held = self.producer.write(register, value)
        if register == SysReg.HDBSSPROD_EL2:
            self._synchronized_prod = held
            self._uncounted = 0
        return held

    def read(self, register: int, el: int = 2) -> int:
        """Do an MRS; errors as ``write``.

        What HDBSSPROD_EL2 shows of hardware's increments is ``Choices.visibility``
        (R_RYKVL, I_XXFYP).
        """
        if register == SysReg.ID_AA64MMFR1_EL1:
            return self.producer.read(register)
        self._check_access(register, el)
        if register == SysReg.HCR_EL2:
            return self.hcr
        if register == SysReg.VTTBR_EL2:
            return self.vttbr
        if register == SysReg.HDBSSPROD_EL2 and self._holds_back:
            return self._synchronized_prod
        return self.producer.read(register)

    def _check_access(self, register: int, el: int) -> None:
        if el < 2:
            raise Undefined(f"{SysReg(register).name} at EL{el}")
        hdbss = register in (SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2)
        if hdbss and el == 2 and not self.hdbssen:
            raise TrappedToEl3(f"{SysReg(register).name} with HDBSSEn 0")

    @property
    def _holds_back(self) -> bool:
        return self.choices.visibility is Visibility.DSB

    @property
    def outstanding(self) -> int:
        """Entries that have not reached memory."""
        return len(self._outstanding)

    @property
    def visible_prod(self) -> int:
        """HDBSSPROD_EL2 as a direct read shows it now."""
        return self.read(SysReg.HDBSSPROD_EL2)

    def context_synchronize(self) -> bool:
        """Take a context synchronization event: ISB, exception entry or return.

        Increments for entries that are outstanding are not included (UNCONFIRMED).  Returns
        whether a direct read of HDBSSPROD_EL2 shows something else now.
        """
        before = self._synchronized_prod
        self._synchronized_prod = self.producer.hdbssprod - self._uncounted
        return self._holds_back and self._synchronized_prod != before

    def dsb(self) -> int:
        """Complete a DSB for loads and stores: entries become observable (R_CGCHP, ~R_TCJKB).

        A late FSC is set by now as well (permissive: no rule gives it a limit).  An
        outstanding entry whose write fails only here is lost, which FSC tells.  Returns
        the number of entries that were outstanding.
        """
        if self._late_fsc:
            self._publish_late_fsc()
        count = self.outstanding
        while self._outstanding:
            self._publish_oldest()
        return count

    def enter_guest(self) -> None:
        """Return to EL1&0: what is outstanding becomes observable, and the context is new."""
        self.dsb()
        self.context_synchronize()

    def _publish_oldest(self) -> None:
        slot, value = self._outstanding.pop(0)
        self._uncounted = min(self._uncounted, self.outstanding)
        fault = self.memory.write64(slot, value)
        if fault:
            self.producer.fail(fault)

    def _publish_late_fsc(self) -> None:
        self.producer.fail(self._late_fsc)
        self._late_fsc = ProdFsc.NONE

    # --- what is in effect ----------------------------------------------------

    @property
    def hdbss_on(self) -> bool:
        """Effective HDBSS: HCR_EL2.VM, HA, HD, HDBSS and HDBSSEn (digest 2)."""
        return stage2_in_use(self.hcr) and self.producer.enabled and self.hdbssen

    # --- accesses -------------------------------------------------------------

    def store(self, ipa: int) -> Outcome:
        """Do the stage 2 part of a store by EL1&0 to ``ipa``."""
        return self.access(ipa, Access.WRITE)

    def access(self, ipa: int, kind: Access, el: int = 1) -> Outcome:
        """Do the stage 2 part of an access, steps 2 to 7 of the digest's section 16.

        Raises RetryLimit if the descriptor never stands still.
        """
        if not stage2_in_use(self.hcr):
            return Completed(None)
        appended: list[Append] = []
        for _ in range(RETRY_LIMIT):
            outcome = self._attempt(ipa, kind, el, appended)
            if outcome is not None:
                while self.outstanding > OUTSTANDING_MAX:
                    self._publish_oldest()
                return outcome
        raise RetryLimit(f"IPA {ipa:#x}: the descriptor changed {RETRY_LIMIT} times")

    def _attempt(self, ipa: int, kind: Access, el: int, appended: list[Append]) -> Outcome | None:
        """Walk and update once; None means that the access is evaluated anew."""
        leaf = walk(ipa, self.vttbr, self.producer.vtcr, self.memory.read64)
        if isinstance(leaf, WalkFault):
            # A fault of the walk comes before anything HDBSS does (digest 8, evaluation order).
            abort = self._abort(kind, _WALK_FAULT[leaf.fault], leaf.level)
            return Aborted(abort, None, walk_fault=leaf, appended=tuple(appended))

        old = leaf.descriptor
        fault = self._permission(kind, el, old)
        new = old
        if fault is None and not old & leaf_bits.AF.mask:
            new |= leaf_bits.AF.mask
        entries = len(appended)
        if self._dirties(kind, old, fault):
            new = leaf_bits.dirtied(old)
            if self.hdbss_on:
                recorded = self._record(ipa, kind, leaf, appended)
                if isinstance(recorded, Aborted):
                    return recorded
                if recorded is _Recorded.AGAIN:
                    return None

        if new != old:
            found = self.memory.compare_and_swap64(leaf.descriptor_pa, old, new)
            counted = len(appended) > entries
            if found is None:
                # ~R_ZLNFF: the entry was written before; whether it counts is C13.
                if counted and not self.choices.aborted_update_keeps_entry:
                    self._take_back(appended)
                abort = self._abort(kind, syndrome.Kind.EXTERNAL_ABORT_WALK, leaf.level)
                return Aborted(abort, leaf, appended=tuple(appended))
            if found != old:
                if counted and self.choices.lost_cas_keeps_entry:
                    appended[-1] = replace(appended[-1], after=found, cas_lost=True)
                elif counted:
                    self._take_back(appended)
                return None
        if fault is not None:
            return Aborted(self._abort(kind, fault, leaf.level), leaf, appended=tuple(appended))
        return Completed(leaf, tuple(appended))

    def _permission(self, kind: Access, el: int, descriptor: int) -> syndrome.Kind | None:
        """Return the fault that the leaf itself gives, HDBSS left aside."""
        needs = kind.value
        if not descriptor & leaf_bits.AF.mask and not self.producer.vtcr & VTCR_HA.mask:
            return syndrome.Kind.ACCESS_FLAG
        if (
            (needs.reads and not leaf_bits.readable(descriptor))
            or (needs.writes and not self._may_write(descriptor))
            or (needs.fetches and not leaf_bits.executable(descriptor, el))
        ):
            return syndrome.Kind.PERMISSION
        return None

    def _may_write(self, descriptor: int) -> bool:
        """S2AP[1], or writable-clean with HD in effect (R_NSXRD)."""
        return leaf_bits.writable(descriptor) or self._clean(descriptor)

    def _clean(self, descriptor: int) -> bool:
        return self.producer.hd and leaf_bits.writable_clean(descriptor)

    def _dirties(self, kind: Access, descriptor: int, fault: syndrome.Kind | None) -> bool:
        """Say whether this access does a clean-to-dirty update (R_NSXRD, R_WZKFT)."""
        if not self._clean(descriptor):
            return False  # dirty already, DBM == 0 (R_PZFQC) or HD not in effect
        if fault is None:
            return kind.value.dirties or (
                kind is Access.FAILED_CAS and self.choices.failed_cas_dirties
            )
        # R_KTXCF (C4): the read alone is denied.  Such an update is not needed, so it
        # is left out, and nothing is refused, when it cannot be recorded.
        return (
            kind is Access.ATOMIC
            and fault is syndrome.Kind.PERMISSION
            and self.choices.unreadable_atomic_dirties
            and not (self.hdbss_on and not self.producer.can_append())
        )

    # --- the record of a dirty update -----------------------------------------

    def _record(
        self, ipa: int, kind: Access, leaf: Leaf, appended: list[Append]
    ) -> Aborted | _Recorded:
        """Append the entry of a leaf that is about to become dirty (R_WZKFT, R_STJMN)."""
        producer = self.producer
        if not producer.can_append():
            return self._refuse(kind, leaf, appended)
        if self._late_fsc:
            # I_LMSZL: the report is still under way, this entry is lost too.
            self._late_updates -= 1
            if not self._late_updates:
                self._publish_late_fsc()
            return _Recorded.UPDATE

        entry, slot = producer.entry_for(ipa, leaf.level), producer.slot()
        fault = self._write_entry(slot, entry)
        if fault is ProdFsc.GPF:
            return self._granule_protection_fault(kind, leaf, appended)
        if fault:
            return self._external_abort(kind, leaf, appended)
        before = leaf.descriptor
        after = leaf_bits.dirtied(before)
        appended.append(Append(ipa, entry, slot, leaf.descriptor_pa, before, after, producer.index))
        producer.appended()
        for ahead in range(producer.index, producer.index + self.choices.zero_ahead):
            if ahead < producer.capacity:  # never outside the N slots
                self.memory.write64(hdbss_slot(producer.base, ahead), 0)
        return _Recorded.UPDATE

    def _write_entry(self, slot: int, entry: int) -> ProdFsc:
        if self.producer.sz_reserved:
            # UNCONFIRMED what a reserved SZ does; taken as a buffer that cannot be written.
            return ProdFsc.EXTERNAL_ABORT
        if not self._holds_back:
            return self.memory.write64(slot, entry)
        if self.memory.read64(slot) is None:
            return ProdFsc.EXTERNAL_ABORT
        self._outstanding.append((slot, entry))
        self._uncounted += 1
        return ProdFsc.NONE

    def _refuse(self, kind: Access, leaf: Leaf, appended: list[Append]) -> Aborted:
        """Refuse an access as if VTCR_EL2.HD were 0, and set HDBSSF (R_STJMN, R_YHLRY)."""
        old = leaf.descriptor
        if self.choices.af_with_refusal and not old & leaf_bits.AF.mask:
            self.memory.compare_and_swap64(leaf.descriptor_pa, old, old | leaf_bits.AF.mask)
        abort = self._abort(kind, syndrome.Kind.PERMISSION, leaf.level, hdbssf=True)
        return Aborted(abort, leaf, refused=True, appended=tuple(appended))

    def _external_abort(
        self, kind: Access, leaf: Leaf, appended: list[Append]
    ) -> Aborted | _Recorded:
        """The entry's write took an External abort; INDEX stays (~R_JHHQW, digest 9a)."""
        dirty = self.choices.dirty_after_external_abort
        if self.choices.external_abort is Report.PRECISE:
            if dirty:  # ~R_QNJKV (C12)
                old = leaf.descriptor
                self.memory.compare_and_swap64(leaf.descriptor_pa, old, leaf_bits.dirtied(old))
            abort = self._abort(kind, syndrome.Kind.EXTERNAL_ABORT_WALK, leaf.level, hdbssf=True)
            return Aborted(abort, leaf, appended=tuple(appended))
        if self.choices.fsc_delay:
            self._late_fsc = ProdFsc.EXTERNAL_ABORT
            self._late_updates = self.choices.fsc_delay
            return _Recorded.UPDATE
        self.producer.fail(ProdFsc.EXTERNAL_ABORT)
        return _Recorded.UPDATE if dirty else _Recorded.AGAIN

    def _granule_protection_fault(
        self, kind: Access, leaf: Leaf, appended: list[Append]
    ) -> Aborted | _Recorded:
        """The entry's write took a GPF; INDEX stays, no update (R_LHLSD, digest 9b).

        "No update" is how the pseudocode reads; the rule's own text does not say it.
        """
        if self.choices.gpf is Report.PRECISE:
            abort = self._abort(kind, syndrome.Kind.GPF_WALK, leaf.level, hdbssf=True)
            return Aborted(abort, leaf, appended=tuple(appended))
        self.producer.fail(ProdFsc.GPF)
        return _Recorded.AGAIN

    def _take_back(self, appended: list[Append]) -> None:
        appended.pop()
        self.producer.taken_back()
        if self._holds_back:
            self._outstanding.pop()
            self._uncounted -= 1

    @staticmethod
    def _abort(kind: Access, fault: syndrome.Kind, level: int, hdbssf: bool = False) -> Abort:
        needs = kind.value
        return Abort(
            instruction=needs.fetches,
            kind=fault,
            level=level,
            wnr=needs.writes,  # UNCONFIRMED for an abort on a stage 1 walk
            s1ptw=needs.stage1_walk,
            hdbssf=hdbssf,
        )
