# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine under a person's hands: stops, steps and looks, with the interceptor at work.

At an address where the interceptor acts itself a person's stop comes first; what belongs
to that address is done when the machine goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from qemu_model.arch.registers import SysReg, stage2_in_use
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.gdbstub.explain import PeState
from qemu_model.gdbstub.interceptor import Interceptor
from qemu_model.gdbstub.kernelcode import KernelCode
from qemu_model.gdbstub.mi import GdbError, Stop
from qemu_model.gdbstub.moments import Moment, Moments
from qemu_model.gdbstub.pes import EmulatedPe
from qemu_model.trace import RawRecord

_STEP_LIMIT = 2.0
"""Seconds for one instruction; a PE that waits for an interrupt executes none."""
_UNMAPPED_TEXT = (("__idmap_text_start", "__idmap_text_end"), ("_sinittext", "_einittext"))
"""Code of the kernel that may run with the MMU off, at physical addresses."""
_HELD = {str(register.name): int(register) for register in SysReg if "HDBSS" in register.name}


@dataclass(frozen=True)
class Point:
    """A breakpoint of the person's; ``once`` goes with the next stop."""

    number: int
    text: str
    addresses: tuple[int, ...]
    handles: tuple[int, ...]
    once: bool


def code_address(text: str, kernel: KernelCode) -> int:
    """The address of an instruction: a number, SYMBOL or SYMBOL+OFFSET; UsageError if none."""
    try:
        address = int(text, 0)
    except ValueError:
        address = kernel.place(text)
    if not 0 <= address < 1 << 64 or address & 3:
        raise UsageError(f"{text} is not the address of an instruction")
    return address


class Debugger:
    """One machine that stands still at first.

    ``stop`` is where it stands, None while it runs; ``why`` says in lines why it has
    stopped.  All methods but ``serve`` want a machine that stands still.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self.interceptor = interceptor
        self.gdb = interceptor.gdb
        self.kernel = interceptor.kernel
        self.pes: Sequence[EmulatedPe] = interceptor.pes
        self.points: list[Point] = []
        self.why: list[str] = []
        self.moments = Moments(len(self.pes), self.name)
        self.interrupted = False
        """Set it to have a running machine stopped."""
        (pc,) = self.gdb.read("pc", thread=1)
        self.stop: Stop | None = Stop(1, pc, "start")
        self.closed = False
        """Set when the interceptor is detached."""
        self._end = self.kernel.place("_end")
        self._numbers = count(1)
        self._wanted: tuple[Moment, int | None] | None = None
        self._deadline: float | None = None
        self._caught: list[str] = []
        interceptor.observe(self._record)

    @property
    def ended(self) -> bool:
        """Whether QEMU has gone, or we have."""
        return self.gdb.gone or self.closed

    @property
    def pe(self) -> int:
        """The PE that stopped or was chosen."""
        return self._standing().thread - 1

    def _standing(self) -> Stop:
        if self.ended:
            raise UsageError("the machine has ended")
        if self.stop is None:
            raise UsageError("the machine is running")
        return self.stop

    # --- names ------------------------------------------------------------------

    def address(self, text: str) -> int:
        """The address of a number, SYMBOL or SYMBOL+OFFSET; UsageError if it is none."""
        return code_address(text, self.kernel)

    def name(self, address: int) -> str:
        """``symbol+0x10``, also of the kernel's physical addresses."""
        virtual = address - self.kernel.load + self.kernel.text
        if self.kernel.text <= virtual < self._end:
            return f"{self.kernel.name_of(virtual)} (physical)"
        known = self.kernel.text <= address < self._end
        return self.kernel.name_of(address) if known else f"{address:#x}"

    # --- looking ----------------------------------------------------------------

    def state(self, pe: int) -> PeState:
        """Where a PE is, and its HDBSS registers as software has written them."""
        self._standing()
        pc, pstate, hcr = self.gdb.read("pc", "cpsr", "HCR_EL2", thread=pe + 1)
        el = pstate >> 2 & 0b11
        guest = el < 2 and stage2_in_use(hcr)
        place = self.name(pc) if el else f"{pc:#x} (user space)"
        producer = self.pes[pe].model.producer
        return PeState(
            index=pe,
            place=f"{pc:#x}" if guest else place,
            el=el,
            guest=guest,
            halted=pe + 1 in self.gdb.halted(),
            hdbssbr=producer.hdbssbr,
            hdbssprod=producer.hdbssprod,
            vtcr=producer.vtcr,
            last_exit=self.moments.last_exit[pe],
        )

    def registers(self, pe: int, names: Sequence[str]) -> list[tuple[str, int]]:
        """Registers by name in any case, as software would read them; UsageError for others."""
        self._standing()
        producer = self.pes[pe].model.producer
        held = {**_HELD, "VTCR_EL2": int(SysReg.VTCR_EL2)}
        found = []
        for name in names:
            known = next((n for n in (name.upper(), name.lower(), name) if self.gdb.has(n)), None)
            if name.upper() in held:
                found.append((name.upper(), producer.read(held[name.upper()])))
            elif known is not None:
                try:
                    found.append((known, self.gdb.read(known, thread=pe + 1)[0]))
                except GdbError:
                    raise UsageError(f"{name} is no register of one number") from None
            else:
                raise UsageError(f"there is no register {name}")
        return found

    def read64(self, pa: int) -> int | None:
        """A word of physical memory, None outside RAM."""
        return self.pes[0].model.memory.read64(pa)

    def code(self, address: int, size: int) -> bytes:
        """Instructions as the current PE has them; the kernel's also before it has an MMU.

        UsageError where nothing is mapped.
        """
        self._standing()
        physical = self.kernel.physical(address)
        if self.kernel.text <= address < self._end:
            words = [self.read64(at) for at in range(physical & ~7, physical + size, 8)]
            data = b"".join((word or 0).to_bytes(8, "little") for word in words)
            return data[physical & 7 :][:size]
        try:
            return self.gdb.memory(address, size)
        except GdbError:
            raise UsageError(f"PE {self.pe} has no memory at {address:#x}") from None

    def watched(self, address: int) -> bool:
        """Whether the interceptor acts at an address now."""
        return self.interceptor.watches(Stop(1, address, ""))

    # --- going on ---------------------------------------------------------------

    def choose(self, pe: int) -> None:
        """Make a PE the current one."""
        self._standing()
        (pc,) = self.gdb.read("pc", thread=pe + 1)
        self.stop = Stop(pe + 1, pc, "chosen")

    def point(self, text: str, once: bool = False) -> Point:
        """Make a breakpoint; UsageError if ``text`` names no address."""
        address = self.address(text)
        self._standing()
        addresses = [address]
        for start, end in _UNMAPPED_TEXT:
            try:
                if self.kernel.place(start) <= address < self.kernel.place(end):
                    addresses.append(self.kernel.physical(address))
            except UsageError:
                continue  # this kernel has no such section
        handles = tuple(self.gdb.insert(each) for each in addresses)
        made = Point(next(self._numbers), text, tuple(addresses), handles, once)
        self.points.append(made)
        return made

    def remove(self, points: Sequence[Point]) -> None:
        """Remove breakpoints."""
        self.gdb.delete(handle for point in points for handle in point.handles)
        self.points = [point for point in self.points if point not in points]

    def resume(
        self, seconds: float | None = None, wanted: tuple[Moment, int | None] | None = None
    ) -> None:
        """Let the machine run: for so long, and until a moment of a PE (None: of any)."""
        stop = self._standing()
        if wanted is not None and wanted[0] in (Moment.ENTRY, Moment.EXIT):
            self.interceptor.watch_guest()
        self._wanted, self._caught = wanted, []
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.interrupted = False
        self.why = []
        self.gdb.select(stop.thread)
        self.stop = None
        self._pass(stop)

    def step(self) -> None:
        """Execute one instruction of the current PE; the others stand still."""
        stop = self._standing()
        if stop.thread in self.gdb.halted():
            raise UsageError(f"PE {stop.thread - 1} is halted: it executes nothing for now")
        self.gdb.select(stop.thread)
        self._wanted, self._caught, self.why = None, [], []
        if self.interceptor.watches(stop):
            self.interceptor.stand()
            self._pass(stop)
            return
        self.stop = self.gdb.step(_STEP_LIMIT)
        if self.stop.reason == "signal-received":
            self.why = [f"PE {stop.thread - 1} did not come to the next instruction (WFI?)"]

    def serve(self, seconds: float) -> None:
        """Answer stops for about so long, or until ``stop`` is set or QEMU has gone."""
        end = time.monotonic() + seconds
        while self.stop is None and not self.gdb.gone:
            now = time.monotonic()
            if self.interrupted:
                self._interrupt("interrupted")
            elif self._deadline is not None and now >= self._deadline:
                self._interrupt("the time is over")
            elif now >= end:
                return
            else:
                stop = self.gdb.wait(min(end, self._deadline or end) - now)
                if stop is not None:
                    self._stopped(stop)

    def _stopped(self, stop: Stop) -> None:
        hit = next((point for point in self.points if stop.pc in point.addresses), None)
        if hit is not None:
            what = "reached" if hit.once else f"breakpoint {hit.number},"
            self._halt(stop, [f"{what} {hit.text}"])
        elif self.interceptor.watches(stop) or stop.reason == "breakpoint-hit":
            self._pass(stop)
        else:
            self._halt(stop, [f"gdb: {stop.reason or 'stopped'}"])

    def _pass(self, stop: Stop) -> None:
        """Do what belongs to the place where it stands, and go on from it."""
        if self.interceptor.watches(stop):
            self.interceptor.answer(stop)
        else:
            # Somebody's breakpoint that has gone in the meantime, or where a person looked.
            self.gdb.go()
        if self.gdb.running or self.gdb.gone:
            return
        (pc,) = self.gdb.read("pc", thread=stop.thread)
        here = Stop(stop.thread, pc, "record")
        if pc == self.kernel.sites.retry_eret:
            # Not the kernel's way, but ours into the guest: a person sees the guest.
            here = self.gdb.step(_STEP_LIMIT)
        self._halt(here, self._caught)

    def _interrupt(self, why: str) -> None:
        stop = self.gdb.interrupt()
        if stop is not None:
            self._halt(stop, [why])

    def _halt(self, stop: Stop, why: list[str]) -> None:
        if not 0 < stop.thread <= len(self.pes):
            raise InfrastructureError(f"gdb stopped a thread {stop.thread} that nobody knows")
        self.stop, self.why = stop, why
        self._wanted = self._deadline = None
        self.interrupted = False
        self.remove([point for point in self.points if point.once])

    def _record(self, record: RawRecord) -> None:
        moment = self.moments.take(record)
        if moment is None or self._wanted is None or self._caught:
            return
        wanted, pe = self._wanted
        if moment is wanted and pe in (None, record[2]):
            self._caught = list(self.moments.words(record, moment))
            self.interceptor.stand()
