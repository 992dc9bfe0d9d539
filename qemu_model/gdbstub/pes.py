# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated PEs as the interceptor knows them: reference PEs, and what they write down.

Everything that happens is first done by ``model.pe.PE`` and then recorded, so that the
trace says what the model did.  Nothing here knows of gdb.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from qemu_model.arch import descriptor as leaf_bits
from qemu_model.arch import syndrome
from qemu_model.arch.registers import (
    HDBSSBR_BADDR,
    HDBSSBR_SZ,
    VTCR_HD,
    SysReg,
    hd_enabled,
    hdbss_enabled,
    stage2_in_use,
)
from qemu_model.arch.stage2 import Fault
from qemu_model.model.access import Append, Injected, LateFsc, Lost, Told, Unwritable
from qemu_model.model.choices import BEST, Caching, Choices, Report, Visibility
from qemu_model.model.injection import Event, Injector, unknown
from qemu_model.model.pe import PE, Aborted, Access, Memory, Outcome, RetryLimit
from qemu_model.model.producer import Producer
from qemu_model.trace import (
    BARRIER_CONTEXT,
    BARRIER_DSB,
    FLAG_CAS_LOST,
    FLAG_DIRTY,
    FLAG_PRECISE,
    Anomaly,
    Kind,
    TraceWriter,
)
from qemu_model.vmlinux.sites import Tlbi

_FRUITLESS = 256
"""Retries of one access in one guest entry, without any append: QEMU then faults for a
reason that the model does not see."""


class Verdict(Enum):
    """What becomes of a guest's abort."""

    RETRY = "the PE had to do something else: the access is made again"
    KERNEL = "it is the kernel's, as QEMU tells it"
    REFUSED = "it is the kernel's, with HDBSSF"


@dataclass(frozen=True)
class GuestAbort:
    """What EL2 finds after an exception from the guest."""

    esr: int
    hpfar: int
    far: int
    elr: int

    @property
    def ipa(self) -> int:
        """The page's IPA: HPFAR_EL2.FIPA; QEMU has it for Permission faults too."""
        return (self.hpfar & 0x0000_FFFF_FFFF_FFF0) << 8

    @property
    def may_dirty(self) -> bool:
        """Whether a PE with HDBSS might not have taken it: a Permission fault of a write."""
        abort = syndrome.Abort.decode(self.esr)
        if abort is None or abort.kind is not syndrome.Kind.PERMISSION:
            return False
        if abort.s1ptw:
            return True
        # Cache maintenance never dirties (R_ZYGHJ).
        return not abort.instruction and abort.wnr and not self.esr & syndrome.CM.mask


class EmulatedPe:
    """One PE: the model's, and where it is."""

    def __init__(
        self,
        index: int,
        ram: Memory,
        trace: TraceWriter,
        choices: Choices = BEST,
        injector: Injector | None = None,
    ) -> None:
        self.index = index
        self.model = PE(ram, choices, Producer(), injector=injector, number=index)
        self.in_guest = False
        self.refused: tuple[int, int] | None = None
        """ESR_EL2 as QEMU has it and as it is to be delivered, from a refusal on."""
        self.entries = 0
        self.entered = (0, 0)
        """HDBSSBR_EL2 and VTTBR_EL2 of the last guest entry."""
        self.appended = False
        """Whether it has appended anything since then."""
        self._trace = trace
        self._fruitless = 0
        self._retried = (0, 0)
        """ELR_EL2 and FAR_EL2 of the access that was retried last."""
        self._resets = 0

    def record(self, kind: Kind, *fields: int, flags: int = 0) -> None:
        """Write a trace record of this PE."""
        self._trace.write(kind, self.index, fields, flags)

    def reset(self, vtcr: int) -> None:
        """Come out of reset: the registers are UNKNOWN, here 0 unless that is injected."""
        old = self.model
        producer = Producer(0, 0, vtcr)
        met = old.injector.meet(Event.RESET, self.index)
        if met is not None:
            seed, number = met[1].seed or 0, self._resets
            producer = Producer(*(unknown(seed, self.index, number, n) for n in range(3)))
        self._resets += 1
        self.model = PE(old.memory, old.choices, producer, injector=old.injector, number=self.index)
        self.in_guest = False
        self.refused = None
        self.entered = (0, 0)
        if met is not None:
            self._inject(Injected(*met, 0, producer.hdbssprod, 0))
        self.record(Kind.RESET, producer.hdbssbr, producer.hdbssprod, producer.vtcr)

    def write(self, register: int, value: int, pc: int) -> int:
        """MSR at EL2; returns what QEMU is to see of it."""
        held = self.model.write(register, value)
        self.record(Kind.WRITE, register, value, held, pc)
        return value & ~VTCR_HD.mask if self._hidden(value) else value

    def withdraws(self, register: int, value: int) -> bool:
        """Whether an MSR of ``value`` takes the buffer away with which a guest was entered.

        HDBSS is switched off, or the buffer becomes another one.
        """
        producer = self.model.producer
        used = producer.enabled and producer.hdbssbr == self.entered[0]
        if not used or not HDBSSBR_BADDR.get(producer.hdbssbr):
            return False
        if register == SysReg.VTCR_EL2:
            return not hdbss_enabled(value)
        kept = HDBSSBR_BADDR.mask | HDBSSBR_SZ.mask
        return register == SysReg.HDBSSBR_EL2 and value & kept != producer.hdbssbr

    def deliver(self, register: int, value: int, pc: int) -> None:
        """Record an MRS and the value that it got."""
        self.record(Kind.READ, register, value, 0, pc)

    @property
    def enabled(self) -> bool:
        """Whether VTCR_EL2 switches HDBSS on, or does so as it is cached."""
        producer = self.model.producer
        return producer.enabled or hdbss_enabled(producer.vtcr)

    @property
    def hides_hd(self) -> bool:
        """Whether HD, which QEMU does not see, is in effect as written or as it is cached."""
        producer = self.model.producer
        if self.model.choices.caching is Caching.LAZY:
            return producer.hd or hd_enabled(producer.vtcr)
        return self.enabled

    def _hidden(self, vtcr: int) -> bool:
        """Whether QEMU is to see this VTCR_EL2 without HD: where this PE would append.

        With ``Caching.LAZY`` also while HDBSS is off: it may still be on as cached.
        """
        lazy = self.model.choices.caching is Caching.LAZY
        return hd_enabled(vtcr) if lazy else hdbss_enabled(vtcr)

    @property
    def pending_index(self) -> int:
        """INDEX: the entries that no drain has taken, HDBSS on or not."""
        return self.model.producer.index

    @property
    def pending(self) -> bool:
        """Whether there are entries in the buffer that no drain has taken."""
        return self.enabled and self.model.producer.index > 0

    def enter(self, vttbr: int, hcr: int, elr: int) -> None:
        """ERET into the guest."""
        if not stage2_in_use(hcr):
            return
        self.model.vttbr, self.model.hcr = vttbr, hcr
        self.model.enter_guest()
        self.in_guest = True
        self.refused = None
        producer = self.model.producer
        self.entered = (producer.hdbssbr, vttbr)
        self.appended = False
        self._fruitless = 0
        self.record(
            Kind.ENTRY, producer.hdbssbr, producer.hdbssprod, producer.vtcr, vttbr, hcr, elr
        )
        self.model.preset()
        self._tell(self.model.told)

    def leave(self, esr: int, far: int, hpfar: int, vector: int, elr: int) -> None:
        """Take an exception to EL2."""
        self.in_guest = False
        if self.model.choices.visibility is Visibility.AT_ONCE:
            self.model.dsb()
            self._tell(self.model.told)
        self.model.context_synchronize()
        self.record(Kind.EXIT, esr, far, hpfar, self.model.producer.hdbssprod, vector, elr)

    @property
    def awaits_dsb(self) -> bool:
        """Whether there are entries at EL2 that only a DSB makes observable."""
        model = self.model
        held = model.choices.visibility is Visibility.DSB and model.late_fsc
        return not self.in_guest and (model.outstanding > 0 or held)

    @property
    def awaits_context(self) -> bool:
        """Whether a context synchronization event at EL2 would change what INDEX reads as."""
        model = self.model
        return (
            not (self.in_guest or self.awaits_dsb)
            and model.visible_prod != model.producer.hdbssprod
        )

    def dsb(self, pc: int) -> None:
        """Complete a DSB for loads and stores."""
        count = self.model.dsb()
        self._tell(self.model.told)
        if count:
            self.record(Kind.BARRIER, BARRIER_DSB, count, self.model.visible_prod, pc)

    def isb(self, pc: int) -> None:
        """Take a context synchronization event at EL2."""
        if self.model.context_synchronize():
            self.record(Kind.BARRIER, BARRIER_CONTEXT, 0, self.model.visible_prod, pc)

    def tlbi(self, tlbi: Tlbi, vmid: int, pc: int) -> None:
        """Execute a TLBI; ``forget`` is what it does, here and maybe on other PEs."""
        self.record(Kind.TLBI, tlbi.all, vmid, tlbi.broadcast, pc)

    def forget(self, vmid: int | None) -> None:
        """Lose the cached translations of a VMID, or of all."""
        self.model.tlb_invalidate(vmid)
        if self.in_guest:
            self.model.translate_anew()

    def abort(self, abort: GuestAbort) -> Verdict:
        """Do what a PE with HDBSS does instead of a stage 2 Permission fault."""
        descriptor = syndrome.Abort.decode(abort.esr)
        s1ptw = descriptor is not None and descriptor.s1ptw
        try:
            outcome = self.model.access(abort.ipa, Access.STAGE1_UPDATE if s1ptw else Access.WRITE)
        except RetryLimit:
            self._tell(self.model.told)
            self.record(Kind.ANOMALY, Anomaly.RETRY_LIMIT, abort.ipa)
            return Verdict.KERNEL
        self._tell(outcome.told)
        return self._verdict(abort, outcome)

    def _verdict(self, abort: GuestAbort, outcome: Outcome) -> Verdict:
        if not isinstance(outcome, Aborted):
            leaf = outcome.leaf
            clean = leaf is not None and not leaf_bits.writable(leaf.descriptor)
            return self._retry(abort, clean or bool(outcome.appended))
        if outcome.leaf is not None and (outcome.refused or outcome.write_failed):
            esr = delivered(abort.esr, outcome.abort)
            producer = self.model.producer
            leaf = outcome.leaf
            self._fruitless = 0
            if outcome.refused:
                self.record(
                    Kind.REFUSE, abort.ipa, esr, producer.hdbssprod,
                    leaf.descriptor_pa, leaf.descriptor, producer.hdbssbr,
                )  # fmt: skip
            self.refused = (abort.esr, esr)
            return Verdict.REFUSED
        walk_fault = outcome.walk_fault
        if walk_fault is None:
            return Verdict.KERNEL  # the leaf grants no write: DBM is 0 (R_PZFQC)
        if walk_fault.fault is Fault.EXTERNAL_ABORT:
            self.record(Kind.ANOMALY, Anomaly.TABLE_OUTSIDE_RAM, walk_fault.pa or 0)
            return Verdict.KERNEL
        # Unmapped since QEMU walked: the retry has the right fault.
        return self._retry(abort, False)

    def _retry(self, abort: GuestAbort, progress: bool) -> Verdict:
        access = abort.elr, abort.far
        if progress or access != self._retried:
            self._fruitless = 0
        self._retried = access
        self._fruitless += not progress
        if self._fruitless <= _FRUITLESS:
            return Verdict.RETRY
        self._fruitless = 0
        self.record(Kind.ANOMALY, Anomaly.WALK_DISAGREES, abort.ipa)
        return Verdict.KERNEL

    def _tell(self, told: Iterable[Told]) -> None:
        """Record what the model did, in its order."""
        for what in told:
            match what:
                case Append():
                    self._appended(what)
                case Injected():
                    self._inject(what)
                case Lost():
                    self.record(Kind.LOST, what.ipa, what.descriptor_pa, what.before, what.after)
                case LateFsc():
                    self.record(Kind.LATE, what.hdbssprod)
                case Unwritable():
                    if what.sz_reserved:
                        self.record(Kind.ANOMALY, Anomaly.RESERVED_SZ, what.hdbssbr)
                    else:
                        self.record(Kind.ANOMALY, Anomaly.BUFFER_OUTSIDE_RAM, what.slot_pa)

    def _appended(self, append: Append) -> None:
        self.entries += 1
        self.record(
            Kind.APPEND, append.ipa, append.entry, append.slot_pa,
            append.descriptor_pa, append.before, append.after,
            flags=append.index | (FLAG_CAS_LOST if append.cas_lost else 0),
        )  # fmt: skip

    def _inject(self, told: Injected) -> None:
        injection = told.injection
        self.record(
            Kind.INJECT, injection.what, told.ipa, told.number, told.hdbssprod,
            injection.late or 0, told.descriptor_pa,
            flags=(FLAG_PRECISE if injection.report is Report.PRECISE else 0)
            | (FLAG_DIRTY if injection.dirty else 0),
        )  # fmt: skip


_ISS_OF_ACCESS = 0x01FF_C000
"""ISV to AR: what the instruction was."""


def delivered(esr: int, abort: syndrome.Abort) -> int:
    """ESR_EL2 of an abort that QEMU told as ``esr``: only what HDBSS is about differs."""
    esr = esr & ~syndrome.FSC.mask | syndrome.FSC.get(abort.esr) | syndrome.HDBSSF.mask
    s1ptw = abort.s1ptw and not esr & syndrome.S1PTW.mask
    if abort.kind is not syndrome.Kind.PERMISSION or s1ptw:
        esr &= ~_ISS_OF_ACCESS  # ISV is 0 for all but plain accesses
    if s1ptw:
        esr |= syndrome.S1PTW.mask
    if abort.instruction and syndrome.EC.get(esr) != abort.esr >> syndrome.EC.low & 0x3F:
        klass = syndrome.ExceptionClass.INSTRUCTION_ABORT_LOWER_EL
        esr = syndrome.EC.put(esr, klass) & ~(syndrome.WNR.mask | syndrome.CM.mask)
    return esr
