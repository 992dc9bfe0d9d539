# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated PEs as the interceptor knows them: reference PEs, and what they write down.

Everything that happens is first done by ``model.pe.PE`` and then recorded, so that the
trace says what the model did.  Nothing here knows of gdb.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from qemu_model.arch import syndrome
from qemu_model.arch.registers import (
    HDBSSPROD_FSC,
    VTCR_HD,
    ProdFsc,
    hdbss_enabled,
    stage2_in_use,
)
from qemu_model.arch.stage2 import Fault
from qemu_model.model.choices import BEST, Choices, Visibility
from qemu_model.model.pe import PE, Aborted, Access, Append, Memory, Outcome, RetryLimit
from qemu_model.model.producer import Producer
from qemu_model.trace import (
    BARRIER_CONTEXT,
    BARRIER_DSB,
    FLAG_CAS_LOST,
    Anomaly,
    Kind,
    TraceWriter,
)

_FRUITLESS = 256
"""Retries without any append: QEMU then faults for a reason that the model does not see."""


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
        self, index: int, ram: Memory, trace: TraceWriter, choices: Choices = BEST
    ) -> None:
        self.index = index
        self.model = PE(ram, choices, Producer())
        self.in_guest = False
        self.refused: tuple[int, int] | None = None
        """ESR_EL2 as QEMU has it and as it is to be delivered, from a refusal on."""
        self.entries = 0
        self.entered = (0, 0)
        """HDBSSBR_EL2 and VTTBR_EL2 of the last guest entry."""
        self._trace = trace
        self._fruitless = 0

    def record(self, kind: Kind, *fields: int, flags: int = 0) -> None:
        """Write a trace record of this PE."""
        self._trace.write(kind, self.index, fields, flags)

    def reset(self, vtcr: int) -> None:
        """Come out of reset; HDBSSBR_EL2 and HDBSSPROD_EL2 are UNKNOWN, here 0."""
        self.model = PE(self.model.memory, self.model.choices, Producer(0, 0, vtcr))
        self.in_guest = False
        self.refused = None
        self.record(Kind.RESET, 0, 0, vtcr)

    def write(self, register: int, value: int, pc: int) -> int:
        """MSR at EL2; returns what QEMU is to see of it."""
        held = self.model.write(register, value)
        self.record(Kind.WRITE, register, value, held, pc)
        return value & ~VTCR_HD.mask if hdbss_enabled(value) else value

    def deliver(self, register: int, value: int, pc: int) -> None:
        """Record an MRS and the value that it got."""
        self.record(Kind.READ, register, value, 0, pc)

    @property
    def enabled(self) -> bool:
        """Whether VTCR_EL2 switches HDBSS on."""
        return self.model.producer.enabled

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
        self.record(
            Kind.ENTRY, producer.hdbssbr, producer.hdbssprod, producer.vtcr, vttbr, hcr, elr
        )

    def leave(self, esr: int, far: int, hpfar: int, vector: int, elr: int) -> None:
        """Take an exception to EL2."""
        self.in_guest = False
        if self.model.choices.visibility is Visibility.AT_ONCE:
            self.model.dsb()
        self.model.context_synchronize()
        self.record(Kind.EXIT, esr, far, hpfar, self.model.producer.hdbssprod, vector, elr)

    @property
    def awaits_dsb(self) -> bool:
        """Whether there are entries at EL2 that only a DSB makes observable."""
        return not self.in_guest and self.model.outstanding > 0

    @property
    def awaits_context(self) -> bool:
        """Whether a context synchronization event at EL2 would change what INDEX reads as."""
        model = self.model
        return (
            not (self.in_guest or model.outstanding)
            and model.visible_prod != model.producer.hdbssprod
        )

    def dsb(self, pc: int) -> None:
        """Complete a DSB for loads and stores."""
        count = self.model.dsb()
        if count:
            self.record(Kind.BARRIER, BARRIER_DSB, count, self.model.visible_prod, pc)

    def isb(self, pc: int) -> None:
        """Take a context synchronization event at EL2."""
        if self.model.context_synchronize():
            self.record(Kind.BARRIER, BARRIER_CONTEXT, 0, self.model.visible_prod, pc)

    def abort(self, abort: GuestAbort) -> Verdict:
        """Do what a PE with HDBSS does instead of a stage 2 Permission fault."""
        descriptor = syndrome.Abort.decode(abort.esr)
        s1ptw = descriptor is not None and descriptor.s1ptw
        fsc = self.model.producer.fsc
        try:
            outcome = self.model.access(abort.ipa, Access.STAGE1_UPDATE if s1ptw else Access.WRITE)
        except RetryLimit:
            self.record(Kind.ANOMALY, Anomaly.RETRY_LIMIT, abort.ipa)
            return Verdict.KERNEL
        for append in outcome.appended:
            self._appended(append)
        if self.model.producer.fsc != fsc:
            self._buffer_failed()
        return self._verdict(abort, outcome)

    def _verdict(self, abort: GuestAbort, outcome: Outcome) -> Verdict:
        if not isinstance(outcome, Aborted):
            return self._retry(abort, bool(outcome.appended))
        if outcome.refused and outcome.leaf is not None:
            level = outcome.leaf.level
            fsc = syndrome.encode_fsc(syndrome.Kind.PERMISSION, level)
            esr = abort.esr & ~syndrome.FSC.mask | fsc | syndrome.HDBSSF.mask
            producer = self.model.producer
            leaf = outcome.leaf
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

    def _retry(self, abort: GuestAbort, appended: bool) -> Verdict:
        self._fruitless = 0 if appended else self._fruitless + 1
        if self._fruitless <= _FRUITLESS:
            return Verdict.RETRY
        self._fruitless = 0
        self.record(Kind.ANOMALY, Anomaly.WALK_DISAGREES, abort.ipa)
        return Verdict.KERNEL

    def _appended(self, append: Append) -> None:
        self.entries += 1
        self.record(
            Kind.APPEND, append.ipa, append.entry, append.slot_pa,
            append.descriptor_pa, append.before, append.after,
            flags=append.index | (FLAG_CAS_LOST if append.cas_lost else 0),
        )  # fmt: skip

    def _buffer_failed(self) -> None:
        """The model wrote no entry and set FSC: say why."""
        producer = self.model.producer
        if producer.sz_reserved:
            self.record(Kind.ANOMALY, Anomaly.RESERVED_SZ, producer.hdbssbr)
        elif HDBSSPROD_FSC.get(producer.hdbssprod) == ProdFsc.EXTERNAL_ABORT:
            self.record(Kind.ANOMALY, Anomaly.BUFFER_OUTSIDE_RAM, producer.slot())
