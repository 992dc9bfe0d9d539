# SPDX-License-Identifier: GPL-2.0-or-later
"""A processing element with FEAT_HDBSS: the digest's sections 2 to 8 as a machine.

``PE`` acts: give it registers, a memory and an access, and it does what the
hardware may do, writing entries and descriptors; a gdbstub interceptor can thus
use it as the hardware.  Everything that is left open is a field of ``Choices``.

Assumed: Non-secure state, little-endian tables (SCTLR_EL2.EE == 0), no FEAT_S2PIE
and no FEAT_D128.  Where the digest says UNCONFIRMED the permissive reading is
taken, and the method says so.
"""

from dataclasses import dataclass, replace
from enum import Enum

from qemu_model.arch import descriptor as leaf_bits
from qemu_model.arch import syndrome
from qemu_model.arch.registers import VTCR_HA, ProdFsc, SysReg, hdbss_slot, stage2_in_use
from qemu_model.arch.stage2 import Fault, Leaf, WalkFault, walk
from qemu_model.arch.syndrome import Abort
from qemu_model.model.access import (
    Aborted,
    Access,
    Append,
    Completed,
    Injected,
    LateFsc,
    Lost,
    Outcome,
    RetryLimit,
    Told,
    TrappedToEl3,
    Undefined,
    Unwritable,
)
from qemu_model.model.choices import Caching, Choices, Report, Visibility
from qemu_model.model.heldback import OUTSTANDING_MAX, HeldBack, Memory
from qemu_model.model.injection import FAULTS, Event, Injection, Injector, What
from qemu_model.model.producer import Producer
from qemu_model.model.tlb import Tlb

RETRY_LIMIT = 64
"""Lost compare-and-swaps after which an access gives up; hardware has no limit."""

_WALK_FAULT = {
    Fault.TRANSLATION: syndrome.Kind.TRANSLATION,
    Fault.ADDRESS_SIZE: syndrome.Kind.ADDRESS_SIZE,
    Fault.EXTERNAL_ABORT: syndrome.Kind.EXTERNAL_ABORT_WALK,
}


_FAULT_OF = {What.ABORT: ProdFsc.EXTERNAL_ABORT, What.GPF: ProdFsc.GPF}


class _Recorded(Enum):
    """How the attempt to record a dirty update ended, if the access was not stopped."""

    ENTRY = "an entry was written: go on with the descriptor"
    LOST = "the entry is lost: go on with the descriptor all the same"
    AGAIN = "evaluate the access anew"


@dataclass(frozen=True, slots=True)
class _Fault:
    """A fault of an HDBSS write, and how the PE deals with it."""

    fsc: ProdFsc
    report: Report
    dirty: bool
    late: int


class PE:
    """One processing element.

    ``memory`` holds tables and buffer.  ``hdbssen`` is SCR_EL3.HDBSSEn; a machine
    without EL3 behaves as if it were 1.  Register contents after a Warm reset are
    UNKNOWN, so they are given as ``producer``.  ``injector`` counts the events of the
    whole machine, in which this PE is number ``number``.
    """

    def __init__(
        self,
        memory: Memory,
        choices: Choices | None = None,
        producer: Producer | None = None,
        hdbssen: bool = True,
        injector: Injector | None = None,
        number: int = 0,
    ) -> None:
        self.memory = memory
        self.choices = choices or Choices()
        self.producer = producer or Producer()
        self.hdbssen = hdbssen
        self.injector = injector or Injector()
        self.number = number
        self.told: list[Told] = []
        """What the last access, or what came after it, did in memory and registers."""
        self.hcr = 0
        self.vttbr = 0
        self._held = HeldBack(self.producer, self.choices.visibility is Visibility.DSB)
        self._tlb = Tlb() if self.choices.caching is Caching.LAZY else None
        self._late_fsc = ProdFsc.NONE
        self._late_updates = 0
        self._race_lost = False

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
            self._held.written()
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
        if register == SysReg.HDBSSPROD_EL2:
            return self._held.hdbssprod
        return self.producer.read(register)

    def _check_access(self, register: int, el: int) -> None:
        if el < 2:
            raise Undefined(f"{SysReg(register).name} at EL{el}")
        hdbss = register in (SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2)
        if hdbss and el == 2 and not self.hdbssen:
            raise TrappedToEl3(f"{SysReg(register).name} with HDBSSEn 0")

    @property
    def outstanding(self) -> int:
        """Entries that have not reached memory."""
        return self._held.outstanding

    @property
    def visible_prod(self) -> int:
        """HDBSSPROD_EL2 as a direct read shows it now."""
        return self._held.hdbssprod

    def context_synchronize(self) -> bool:
        """Take a context synchronization event: ISB, exception entry or return.

        Returns whether a direct read of HDBSSPROD_EL2 shows something else now.
        """
        return self._held.synchronize()

    @property
    def late_fsc(self) -> bool:
        """Whether an FSC is still to be set."""
        return self._late_fsc != ProdFsc.NONE

    def dsb(self) -> int:
        """Complete a DSB for loads and stores: entries become observable (R_CGCHP, ~R_TCJKB).

        A late FSC is set by now as well (permissive: no rule gives it a limit).  Returns the
        number of entries that were outstanding.
        """
        self.told = []
        if self.late_fsc:
            self._publish_late_fsc()
        return self._held.publish(self.memory)

    def enter_guest(self) -> None:
        """Return to EL1&0: what is outstanding becomes observable, and the context is new.

        An INDEX that is injected comes then, as if an earlier owner had left it.
        """
        self.told = []
        self._held.publish(self.memory)
        self.context_synchronize()
        self.translate_anew()

    def tlb_invalidate(self, vmid: int | None) -> None:
        """Take a TLBI of all stage 2 translations of a VMID, or with None of all of them.

        For a PE that is in a guest ``translate_anew`` has to follow.
        """
        if self._tlb is not None:
            self._tlb.invalidate(vmid)

    def translate_anew(self) -> None:
        """Let VTCR_EL2 be in effect as it is cached for the VMID of VTTBR_EL2."""
        if self._tlb is not None:
            self.producer.obey(self._tlb.vtcr(self.vttbr >> 48, self.producer.vtcr))

    def preset(self) -> None:
        """Let an injection of INDEX at a guest entry happen; ``told`` has it."""
        self.told = []
        if not self.hdbss_on or self.producer.hdbssprod:
            return
        met = self._meet(Event.ENTRY, 0)
        if met is not None and met[1].preset is not None:
            self.producer.index = met[1].preset.of(self.producer.hdbssbr)
            self._held.written()
            self._tell_injected(met, 0, 0)

    def _publish_late_fsc(self) -> None:
        self.producer.fail(self._late_fsc)
        self._late_fsc = ProdFsc.NONE
        self.told.append(LateFsc(self.producer.hdbssprod))

    # --- injections -----------------------------------------------------------

    def _meet(self, event: Event, ipa: int) -> tuple[int, Injection] | None:
        return self.injector.meet(event, self.number, self.vttbr >> 48, ipa)

    def _tell_injected(self, met: tuple[int, Injection], ipa: int, descriptor_pa: int) -> None:
        self.told.append(Injected(*met, ipa, self.producer.hdbssprod, descriptor_pa))

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
        self.told = []
        if not stage2_in_use(self.hcr):
            return Completed(None)
        for _ in range(RETRY_LIMIT):
            outcome = self._attempt(ipa, kind, el)
            if outcome is not None:
                self._held.bound(self.memory)
                return replace(outcome, told=tuple(self.told))
        self._held.bound(self.memory)
        raise RetryLimit(f"IPA {ipa:#x}: the descriptor changed {RETRY_LIMIT} times")

    def _attempt(self, ipa: int, kind: Access, el: int) -> Outcome | None:
        """Walk and update once; None means that the access is evaluated anew."""
        leaf = walk(ipa, self.vttbr, self.producer.vtcr, self.memory.read64)
        if isinstance(leaf, WalkFault):
            # A fault of the walk comes before anything HDBSS does (digest 8, evaluation order).
            abort = self._abort(kind, _WALK_FAULT[leaf.fault], leaf.level)
            return Aborted(abort, None, walk_fault=leaf)

        old = leaf.descriptor
        fault = self._permission(kind, el, old)
        new = old
        if fault is None and not old & leaf_bits.AF.mask:
            new |= leaf_bits.AF.mask
        recorded: Aborted | _Recorded | None = None
        if self._dirties(kind, old, fault):
            new = leaf_bits.dirtied(old)
            if self.hdbss_on:
                recorded = self._record(ipa, kind, leaf)
                if isinstance(recorded, Aborted):
                    return recorded
                if recorded is _Recorded.AGAIN:
                    return None

        if new != old:
            counted = recorded is _Recorded.ENTRY
            found = self._swap(leaf.descriptor_pa, old, new, counted)
            if found is None:
                # ~R_ZLNFF: the entry was written before; whether it counts is C13.
                if counted and not self.choices.aborted_update_keeps_entry:
                    self._take_back()
                abort = self._abort(kind, syndrome.Kind.EXTERNAL_ABORT_WALK, leaf.level)
                return Aborted(abort, leaf)
            if found != old or self._race_lost:
                if counted and self.choices.lost_cas_keeps_entry:
                    self._mark_lost(found)
                elif counted:
                    self._take_back()
                return None
            if recorded is _Recorded.LOST:
                self._lost(ipa, leaf.descriptor_pa, old, new)
        if fault is not None:
            return Aborted(self._abort(kind, fault, leaf.level), leaf)
        return Completed(leaf)

    def _swap(self, pa: int, old: int, new: int, counted: bool) -> int | None:
        """Compare and swap a descriptor, unless an injection lets the race be lost."""
        if self._race_lost and counted:
            return old
        self._race_lost = False
        return self.memory.compare_and_swap64(pa, old, new)

    def _lost(self, ipa: int, pa: int, before: int, after: int) -> None:
        """A page has become dirty without an entry."""
        self.told.append(Lost(ipa, pa, before, after))
        if self.late_fsc:
            if not self._late_updates:
                self._publish_late_fsc()
            self._late_updates -= 1

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

    def _record(self, ipa: int, kind: Access, leaf: Leaf) -> Aborted | _Recorded:
        """Append the entry of a leaf that is about to become dirty (R_WZKFT, R_STJMN)."""
        producer = self.producer
        self._race_lost = False
        if not producer.can_append():
            return self._refuse(ipa, kind, leaf)
        if self.late_fsc:
            return _Recorded.LOST  # I_LMSZL: the report is still under way
        met = self._meet(Event.APPEND, ipa)
        if met is not None:
            injected = met[1]
            if injected.what in FAULTS:
                return self._injected_fault(met, ipa, kind, leaf)
            self._tell_injected(met, ipa, leaf.descriptor_pa)
            self._race_lost = injected.what is What.CAS_LOST
            while injected.what is What.FILL and producer.index + 1 < producer.capacity:
                fault = self._append(ipa, leaf)
                if fault:
                    return self._failed(self._as_chosen(fault), ipa, kind, leaf)
                self._mark_lost(leaf.descriptor)
        fault = self._append(ipa, leaf)
        return self._failed(self._as_chosen(fault), ipa, kind, leaf) if fault else _Recorded.ENTRY

    def _append(self, ipa: int, leaf: Leaf) -> ProdFsc:
        """Write the entry at INDEX and count it; the fault of the write."""
        producer = self.producer
        entry, slot = producer.entry_for(ipa, leaf.level), producer.slot()
        fault = self._write_entry(slot, entry)
        if fault:
            self.told.append(Unwritable(slot, producer.hdbssbr, producer.sz_reserved))
            return fault
        before = leaf.descriptor
        after = leaf_bits.dirtied(before)
        self.told.append(
            Append(ipa, entry, slot, leaf.descriptor_pa, before, after, producer.index)
        )
        producer.appended()
        for ahead in range(producer.index, producer.index + self.choices.zero_ahead):
            if ahead < producer.capacity:  # never outside the N slots
                self.memory.write64(hdbss_slot(producer.base, ahead), 0)
        return ProdFsc.NONE

    def _write_entry(self, slot: int, entry: int) -> ProdFsc:
        if self.producer.sz_reserved:
            # UNCONFIRMED what a reserved SZ does; taken as a buffer that cannot be written.
            return ProdFsc.EXTERNAL_ABORT
        return self._held.entry(self.memory, slot, entry)

    def _refuse(self, ipa: int, kind: Access, leaf: Leaf) -> Aborted:
        """Refuse an access as if VTCR_EL2.HD were 0, and set HDBSSF (R_STJMN, R_YHLRY)."""
        old = leaf.descriptor
        if self.choices.af_with_refusal and not old & leaf_bits.AF.mask:
            self.memory.compare_and_swap64(leaf.descriptor_pa, old, old | leaf_bits.AF.mask)
        abort = self._abort(kind, syndrome.Kind.PERMISSION, leaf.level, hdbssf=True)
        met = self._meet(Event.REFUSAL, ipa)
        if met is not None:
            # As of a stage 1 walk that has to update its table (digest 11).
            fetch = abort.instruction or met[1].what is What.FETCH
            abort = replace(abort, s1ptw=True, instruction=fetch)
            self._tell_injected(met, ipa, leaf.descriptor_pa)
        return Aborted(abort, leaf, refused=True)

    def _as_chosen(self, fsc: ProdFsc) -> _Fault:
        """A fault of the HDBSS write itself, dealt with as ``Choices`` say."""
        choices = self.choices
        if fsc is ProdFsc.GPF:
            return _Fault(fsc, choices.gpf, dirty=False, late=0)
        dirty = choices.dirty_after_external_abort
        return _Fault(fsc, choices.external_abort, dirty, choices.fsc_delay)

    def _injected_fault(
        self, met: tuple[int, Injection], ipa: int, kind: Access, leaf: Leaf
    ) -> Aborted | _Recorded:
        injected = met[1].settled(self.choices, 0)
        assert injected.report is not None
        fault = _Fault(
            _FAULT_OF[injected.what], injected.report, bool(injected.dirty), injected.late or 0
        )
        at = len(self.told)
        result = self._failed(fault, ipa, kind, leaf)
        # What is told of it is the register as it is then.
        told = Injected(met[0], injected, ipa, self.producer.hdbssprod, leaf.descriptor_pa)
        self.told.insert(at, told)
        return result

    def _failed(self, fault: _Fault, ipa: int, kind: Access, leaf: Leaf) -> Aborted | _Recorded:
        """The entry's write took a fault; INDEX stays (~R_JHHQW, R_LHLSD, digest 9a, 9b).

        ~R_QNJKV (C12): after an External abort the descriptor may be dirtied.  That it is
        not after a GPF is how the pseudocode reads; the rule's own text does not say it.
        """
        gpf = fault.fsc is ProdFsc.GPF
        if fault.report is Report.PRECISE:
            if fault.dirty:
                old, new = leaf.descriptor, leaf_bits.dirtied(leaf.descriptor)
                if self.memory.compare_and_swap64(leaf.descriptor_pa, old, new) == old:
                    self.told.append(Lost(ipa, leaf.descriptor_pa, old, new))
            code = syndrome.Kind.GPF_WALK if gpf else syndrome.Kind.EXTERNAL_ABORT_WALK
            return Aborted(self._abort(kind, code, leaf.level, hdbssf=True), leaf)
        if fault.late:
            self._late_fsc, self._late_updates = fault.fsc, fault.late
            return _Recorded.LOST
        self.producer.fail(fault.fsc)
        return _Recorded.LOST if fault.dirty else _Recorded.AGAIN

    def _mark_lost(self, found: int) -> None:
        """The race for the descriptor of the newest entry is lost; the entry stays (C9)."""
        last = self.told[-1]
        assert isinstance(last, Append)
        self.told[-1] = replace(last, after=found, cas_lost=True)

    def _take_back(self) -> None:
        self.told.pop()
        self.producer.taken_back()
        self._held.take_back()

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


__all__ = [
    "OUTSTANDING_MAX",
    "PE",
    "RETRY_LIMIT",
    "Aborted",
    "Access",
    "Append",
    "Completed",
    "Memory",
    "Outcome",
    "RetryLimit",
    "TrappedToEl3",
    "Undefined",
]
