# SPDX-License-Identifier: GPL-2.0-or-later
"""FEAT_HDBSS without a plugin: trap and emulate through QEMU's gdbstub.

Hardware breakpoints stand at the kernel's MSRs and MRSs of the registers concerned;
those that every guest exit meets are set only while a PE has HDBSS on.  At each stop
the reference model says what the PE does, the registers are set, and the machine goes
on.  QEMU sees VTCR_EL2 with HD=0 while HDBSS is in effect, so it takes a Permission
fault where a PE would append; the model appends, and the PE is sent to an ERET, by
which the guest makes its access again.

Limits: VHE kernels (nVHE's hyp code runs at addresses of its own), little-endian
tables, no EL3.  ENTRY, EXIT and READ records exist only while breakpoints are set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qemu_model.arch.registers import (
    HAFDBS,
    HCR_E2H,
    HCR_TSC,
    HDBSSBR_BADDR,
    HDBSSPROD_INDEX,
    MMFR1_HAFDBS,
    SysReg,
)
from qemu_model.buffers import Why
from qemu_model.errors import InfrastructureError
from qemu_model.gdbstub.holding import Holding
from qemu_model.gdbstub.kernelcode import KernelCode
from qemu_model.gdbstub.mi import Gdb, GdbLost, Stop
from qemu_model.gdbstub.pes import EmulatedPe, GuestAbort, Verdict
from qemu_model.gdbstub.ram import RamFile
from qemu_model.machine.flushwatch import Stop as FlushStop
from qemu_model.machine.kernelwatch import KernelWatch
from qemu_model.model.choices import BEST, Caching, Choices, Visibility
from qemu_model.model.injection import Injector
from qemu_model.trace import Header, Kind, RawRecord, TraceWriter
from qemu_model.vmlinux.sites import ESR_EL1, HINT_127, Role, Site, barrier, tlbi

WRITER = "gdbstub"
_IDLE_ENTRIES = 16
"""Guest entries in a row, all without HDBSS, after which the breakpoints for it go."""
_SYNCHRONOUS = (0x400, 0x600)
_VECTOR_OFFSET = 0x7FF
_PSCI_CPU_OFF = (0x8400_0002, 0x95C1_BA5F)
"""As QEMU has them, all of x0; the other is that of PSCI 0.1."""
_HINT_MASK, _HINT = 0xFFFF_F01F, 0xD503_201F
"""NOP, ESB and the like: skipping one at a vector saves a single step."""
_NEEDED = ("ESR_EL2", "FAR_EL2", "HPFAR_EL2", "VTTBR_EL2", "HCR_EL2", "ELR_EL2", "VTCR_EL2")


def _el(cpsr: int) -> int:
    """The Exception level, in AArch64."""
    return cpsr >> 2 & 3


class Interceptor:
    """The PEs of one machine that is stopped at its first instruction."""

    def __init__(
        self,
        gdb: Gdb,
        kernel: KernelCode,
        markers: tuple[int, ...],
        ram: RamFile,
        trace: Path,
        pes: int,
        holding: Holding | None = None,
        watch: KernelWatch | None = None,
        returns: tuple[int, ...] = (),
        choices: Choices = BEST,
        injector: Injector | None = None,
    ) -> None:
        self.gdb, self.kernel, self._ram = gdb, kernel, ram
        self._trace = TraceWriter(trace, Header(ram.base, ram.size, pes, WRITER))
        self._trace.write(Kind.BEGIN, 0, (1,))
        missing = [name for name in _NEEDED if not gdb.has(name)]
        if missing:
            raise InfrastructureError(f"this QEMU's gdbstub does not show {', '.join(missing)}")
        if gdb.threads() != pes:
            raise InfrastructureError(f"the gdbstub shows {gdb.threads()} vCPUs, not {pes}")
        injector = injector or Injector()
        self.pes = [EmulatedPe(index, ram, self._trace, choices, injector) for index in range(pes)]
        (self._reset_vtcr,) = gdb.read("VTCR_EL2")
        for pe in self.pes:
            pe.reset(self._reset_vtcr)
        self.stops = 0
        self._sites = dict(kernel.sites.by_address)
        self._markers = frozenset(markers)
        sites = kernel.sites
        self._guest_sites = sites.of(Role.VECTOR, Role.ERET)
        self._esr_sites = sites.of(Role.MRS_ESR)
        self._armed = self._esr_armed = False
        self._idle = 0
        self._compared = False
        gdb.breakpoints(sites.of(Role.MRS, Role.MSR, Role.SMC), enabled=True)
        gdb.breakpoints(markers, enabled=True)
        gdb.breakpoints((*self._guest_sites, *self._esr_sites), enabled=False)
        late = choices.visibility is Visibility.DSB
        self._barriers = dict(sites.barriers) if late else {}
        self._barriers_armed = dict.fromkeys((Role.DSB, Role.ISB), False)
        gdb.breakpoints(self._barriers, enabled=False)
        self._lazy = choices.caching is Caching.LAZY
        if self._lazy:
            gdb.breakpoints(sites.of(Role.TLBI), enabled=True)
        self.holding = holding
        if holding is not None:
            holding.require_apart(self._sites.__contains__)
            holding.prepare(gdb)
        self._stand = False
        self._watch = watch
        self._returns = frozenset(returns)
        gdb.breakpoints(returns, enabled=True)
        self._handlers: dict[Role, Callable[[EmulatedPe, Site], None]] = {
            Role.MRS: self._mrs,
            Role.MSR: self._msr,
            Role.MRS_ESR: self._mrs_esr,
            Role.ERET: self._eret,
            Role.VECTOR: self._vector,
            Role.SMC: self._smc,
            Role.TLBI: self._tlbi,
        }

    # --- the loop -----------------------------------------------------------------

    def start(self) -> None:
        """Let the machine run."""
        self._begin_step()

    def serve(self, seconds: float) -> None:
        """Answer stops for about so long.

        Raises GdbLost when the connection has ended, as it does when QEMU ends.
        """
        end = time.monotonic() + seconds
        while not self.gdb.gone:
            left = end - time.monotonic()
            stop = self.gdb.wait(left) if left > 0 else None
            if stop is None:
                break
            self.answer(stop)
        if self.gdb.gone:
            raise GdbLost("QEMU has closed the connection to gdb")
        holding = self.holding
        if holding is not None and holding.overdue() and holding.report is None:
            last = self.gdb.interrupt()
            if last is not None:
                holding.report = holding.describe(self.gdb, len(self.pes))

    def trouble(self) -> str | None:
        """Why the machine is not worth waiting for: a hold that was never released."""
        return None if self.holding is None else self.holding.report

    def unfinished(self) -> str | None:
        """What the scenario's holds still waited for when the machine had ended."""
        return None if self.holding is None else self.holding.unfinished()

    def answer(self, stop: Stop) -> None:
        """Do what belongs to a stop and let the machine go on.

        Raises InfrastructureError for a stop that nobody asked for.
        """
        self.stops += 1
        try:
            self._answer(stop)
        finally:
            self._stand = False

    def observe(self, observer: Callable[[RawRecord], None]) -> None:
        """Have each record handed over as it is written; the machine stands still then."""
        self._trace.observer = observer

    def stand(self) -> None:
        """Let the stop that is being answered, or the next one, end with the machine stopped.

        What the stopped PE does there is done: it is an instruction further.
        """
        self._stand = True

    def watches(self, stop: Stop) -> bool:
        """Whether ``answer`` has to let this PE go on, because it stands where we act."""
        site = self._sites.get(stop.pc)
        if site is not None:
            return self._is_set(site)
        held = self.holding is not None and self.holding.ours(stop.pc)
        return held or stop.pc in self._markers or self._barrier_is_set(stop.pc)

    def watch_guest(self) -> None:
        """See guest entries and exits for a while, also if no PE has HDBSS on."""
        self._arm(True)

    def _answer(self, stop: Stop) -> None:
        pe = self.pes[stop.thread - 1] if 0 < stop.thread <= len(self.pes) else None
        site = self._sites.get(stop.pc)
        if pe is not None and site is not None:
            self._compare()
            self._handlers[site.role](pe, site)
        elif pe is not None and stop.pc in self._barriers:
            self._barrier(pe, stop.pc)
        elif pe is not None and self.holding is not None and self.holding.ours(stop.pc):
            if self.holding.arrived(stop, pe):
                self._end_step()
            else:
                self.gdb.go()
        elif pe is not None and stop.pc in self._returns:
            if self._watch is not None:
                self._watch.returned(self._flush_stop(pe, stop.pc))
            self.gdb.go()
        elif pe is not None and stop.pc in self._markers:
            self._mark(pe, stop.pc)
        else:
            raise InfrastructureError(
                f"gdb stopped vCPU {stop.thread - 1} at {stop.pc:#x}, where no breakpoint is "
                f"({stop.reason or 'no reason given'})"
            )

    def close(self) -> None:
        """End the trace."""
        self._trace.close()

    def meanwhile(self, drain: Callable[[], None]) -> None:
        """Have ``drain`` called while gdb has nothing to say."""
        self.gdb.meanwhile = drain

    def flush(self) -> None:
        """Let others see what the trace holds by now."""
        self._trace.flush()

    def _compare(self) -> None:
        """At the first stop in the kernel: is this the kernel that vmlinux describes?"""
        if self._compared:
            return
        self._compared = True
        for address in self.kernel.sites.of(Role.MRS, Role.MSR):
            found = self._ram.read32(self.kernel.physical(address))
            expected = self.kernel.words(address)
            if found != expected:
                raise InfrastructureError(
                    f"vmlinux does not match the running kernel: at {address:#x} it has "
                    f"{expected or 0:#010x}, memory has {found or 0:#010x}"
                )

    def _go(self, *before: str, jump: int | None = None) -> None:
        """Let the machine go on; where it is to stand still, do only what changes it."""
        if not self._stand:
            self.gdb.go(*before, jump=jump)
            return
        self.gdb.command(*before)
        if jump is not None:
            self.gdb.write("pc", jump)
        else:
            self.gdb.step()

    def _begin_step(self) -> None:
        """Set up what the scenario holds, and let the machine run."""
        counted = None if self.holding is None else self.holding.begin(self.gdb)
        if counted is None:
            self.gdb.go()
            return
        for _ in range(counted.steps):
            self.single_step(counted.cpu)
        self._end_step()

    def _end_step(self) -> None:
        assert self.holding is not None
        self.holding.end(self.gdb, self._trace.count)
        self._begin_step()

    def single_step(self, cpu: int) -> None:
        """Let one PE execute one instruction, with all that the interceptor does there."""
        (pc,) = self.gdb.read("pc", thread=cpu + 1)
        site = self._sites.get(pc)
        self._stand = True
        try:
            if site is not None and self._is_set(site):
                self._handlers[site.role](self.pes[cpu], site)
            elif self._barrier_is_set(pc):
                self._barrier(self.pes[cpu], pc)
            elif pc in self._markers:
                self._mark(self.pes[cpu], pc)
            else:
                self._go()
        finally:
            self._stand = False

    def _barrier_is_set(self, pc: int) -> bool:
        site = self._barriers.get(pc)
        return site is not None and self._barriers_armed[site.role]

    def _is_set(self, site: Site) -> bool:
        """Whether there is a breakpoint at a site now."""
        if site.role in (Role.VECTOR, Role.ERET):
            return self._armed
        if site.role is Role.TLBI:
            return self._lazy
        return self._esr_armed if site.role is Role.MRS_ESR else True

    # --- registers ----------------------------------------------------------------

    def _mrs(self, pe: EmulatedPe, site: Site) -> None:
        if site.register == SysReg.ID_AA64MMFR1_EL1:
            (real,) = self.gdb.read("ID_AA64MMFR1_EL1")
            value = MMFR1_HAFDBS.put(real, HAFDBS.HDBSS)
        else:
            value = pe.model.read(site.register)
            if site.register == SysReg.HDBSSPROD_EL2 and pe.pending_index and self._watch:
                self._watch.drain_begins(self._flush_stop(pe, site.address))
        pe.deliver(site.register, value, site.address)
        self._set_and_skip(site, value)

    def _flush_stop(self, pe: EmulatedPe, pc: int) -> FlushStop:
        hdbssbr, vttbr = pe.entered
        prod = pe.model.producer.hdbssprod
        return FlushStop(pe.index, self._trace.count + 1, pc, hdbssbr, prod, vttbr)

    def _look(self, why: Why, pe: EmulatedPe, pc: int) -> None:
        """Let the buffer be looked at that HDBSSBR_EL2 names now."""
        if self._watch is not None:
            stop = replace(self._flush_stop(pe, pc), hdbssbr=pe.model.producer.hdbssbr)
            self._watch.buffer(why, stop)

    def _set_and_skip(self, site: Site, value: int) -> None:
        settings = [] if site.rt == 31 else [self.gdb.setting(f"x{site.rt}", value)]
        self._go(*settings, jump=site.address + 4)

    def _source(self, site: Site) -> int:
        return 0 if site.rt == 31 else self.gdb.read(f"x{site.rt}")[0]

    def _msr(self, pe: EmulatedPe, site: Site) -> None:
        value = self._source(site)
        if (
            self._watch is not None
            and site.register == SysReg.HDBSSPROD_EL2
            and pe.pending_index
            and not HDBSSPROD_INDEX.get(value)
        ):
            self._watch.flush(self._flush_stop(pe, site.address))
        if pe.withdraws(site.register, value):
            self._look(Why.WITHDRAWN, pe, site.address)
        seen = pe.write(site.register, value, site.address)
        if site.register == SysReg.HDBSSBR_EL2 and HDBSSBR_BADDR.get(value):
            self._look(Why.ANNOUNCED, pe, site.address)
        self._arm_barriers()
        if site.register != SysReg.VTCR_EL2:
            self._go(jump=site.address + 4)
            return
        if pe.hides_hd:
            self._arm(True)
        if seen == value:
            self._go()
            return
        # QEMU executes it with HD=0; nobody shall find that in the source register.
        self.gdb.write(f"x{site.rt}", seen)
        self.gdb.step()
        self.gdb.write(f"x{site.rt}", value)
        # A jump: from where it stands gdb would step over a breakpoint without a word.
        self._go(jump=site.address + 4)

    def _mrs_esr(self, pe: EmulatedPe, site: Site) -> None:
        esr, hcr = self.gdb.read("ESR_EL2", "HCR_EL2")
        if site.register == ESR_EL1 and not hcr & HCR_E2H.mask:
            self._go()
            return
        if pe.refused is None or pe.refused[0] != esr:  # another exception came after it
            self._go()
            return
        self._set_and_skip(site, pe.refused[1])

    # --- the guest ----------------------------------------------------------------

    def _eret(self, pe: EmulatedPe, site: Site) -> None:
        self._idle = 0 if any(other.hides_hd for other in self.pes) else self._idle + 1
        if self._idle > _IDLE_ENTRIES and not any(other.in_guest for other in self.pes):
            # Nobody's EXIT will be missed: nobody's ENTRY is open.
            self._arm(False)
            self._go()
            return
        vttbr, hcr, elr = self.gdb.read("VTTBR_EL2", "HCR_EL2", "ELR_EL2")
        pe.enter(vttbr, hcr, elr)
        self._arm_barriers()
        if self._esr_armed and not any(other.refused for other in self.pes):
            self._arm_esr(False)
        if self.kernel.words(site.address) == self.kernel.words(self.kernel.sites.retry_eret):
            self._go(jump=self.kernel.sites.retry_eret)
        else:
            self._go()  # ERETAA: only it can authenticate the address

    def _vector(self, pe: EmulatedPe, site: Site) -> None:
        vector = site.address & _VECTOR_OFFSET
        if not pe.in_guest:
            self._enter_vector(site)
            return
        esr, hpfar, far, elr = self.gdb.read("ESR_EL2", "HPFAR_EL2", "FAR_EL2", "ELR_EL2")
        if vector in _SYNCHRONOUS and pe.hides_hd:
            abort = GuestAbort(esr, hpfar, far, elr)
            if abort.may_dirty:
                entries = pe.entries
                verdict = pe.abort(abort)
                if pe.entries > entries and not pe.appended:
                    pe.appended = True
                    self._look(Why.APPENDED, pe, elr)
                if verdict is Verdict.RETRY:
                    self._go(jump=self.kernel.sites.retry_eret)
                    return
                if verdict is Verdict.REFUSED:
                    assert pe.refused is not None
                    esr = pe.refused[1]
                    self._arm_esr(True)
        pe.leave(esr, far, hpfar, vector, elr)
        self._arm_barriers()
        self._enter_vector(site)

    def _barrier(self, pe: EmulatedPe, pc: int) -> None:
        """A place where a barrier stands, unless the kernel has patched it away."""
        role = barrier(self._ram.read32(self.kernel.physical(pc)) or 0)
        if role is Role.DSB:
            pe.dsb(pc)
        elif role is Role.ISB:
            pe.isb(pc)
        self._arm_barriers()
        # Nothing is lost by skipping one: QEMU runs one vCPU at a time here.
        self._go(jump=None if role is None else pc + 4)

    def _tlbi(self, pe: EmulatedPe, site: Site) -> None:
        """A place where a TLBI stands, unless the kernel has put nothing there."""
        found = tlbi(self._ram.read32(self.kernel.physical(site.address)) or 0)
        if found is not None:
            vttbr, cpsr = self.gdb.read("VTTBR_EL2", "cpsr")
            if _el(cpsr) == 2:
                vmid = 0 if found.all else vttbr >> 48
                pe.tlbi(found, vmid, site.address)
                for other in self.pes if found.broadcast else (pe,):
                    other.forget(None if found.all else vmid)
        self._go()

    def _arm_barriers(self) -> None:
        """Stop at barriers only while one would change what a PE sees at EL2."""
        if not self._barriers:
            return
        wanted = {
            Role.DSB: any(pe.awaits_dsb for pe in self.pes),
            Role.ISB: any(pe.awaits_context for pe in self.pes),
        }
        for role, on in wanted.items():
            if self._barriers_armed[role] != on:
                self._barriers_armed[role] = on
                self.gdb.enable((a for a, s in self._barriers.items() if s.role is role), on)

    def _enter_vector(self, site: Site) -> None:
        word = self._ram.read32(self.kernel.physical(site.address))
        if word is not None and word & _HINT_MASK == _HINT:
            self._go(jump=site.address + 4)
        else:
            self._go()

    def _arm(self, on: bool) -> None:
        """Set or remove the breakpoints that every guest exit and entry meets."""
        if on:
            self._idle = 0
        if on != self._armed:
            self._armed = on
            self.gdb.enable(self._guest_sites, on)

    def _arm_esr(self, on: bool) -> None:
        if on != self._esr_armed:
            self._esr_armed = on
            self.gdb.enable(self._esr_sites, on)

    # --- the rest -----------------------------------------------------------------

    def _mark(self, pe: EmulatedPe, pc: int) -> None:
        (value,) = self.gdb.read("x0")
        if not pe.in_guest:
            pe.record(Kind.MARK, value)
        ends = self.holding is not None and self.holding.reported(value)
        if not ends or self._stand:
            self._go(jump=pc + 4)
            return
        self.gdb.write("pc", pc + 4)
        self._end_step()

    def _smc(self, pe: EmulatedPe, site: Site) -> None:
        function, cpsr, hcr = self.gdb.read("x0", "cpsr", "HCR_EL2")
        # UNDEFINED at EL0; at EL1 it may be trapped to EL2.
        called = _el(cpsr) == 2 or (_el(cpsr) == 1 and not hcr & HCR_TSC.mask)
        if called and function in _PSCI_CPU_OFF:
            # It executes nothing more until it comes out of reset.
            pe.reset(self._reset_vtcr)
        self._go()


__all__ = ["HINT_127", "Interceptor"]
