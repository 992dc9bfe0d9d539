# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at whom the memory of an HDBSS buffer belongs to, and writes it down.

Whoever intercepts the PEs calls a ``BufferWatcher`` while the PE in question stands
still.  Nothing is judged here: that is ``checkers/buffer.py``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from qemu_model.arch.registers import ENTRY_BYTES, hdbss_base, hdbss_capacity, sz_reserved
from qemu_model.buffers import VERSION, BufferLook, Why, frames_of, look_line
from qemu_model.machine.flushwatch import FlushPlan, Stop
from qemu_model.machine.watchfile import WatchFile
from qemu_model.vmlinux.memory import KernelMemory, Ram, Unreadable
from qemu_model.vmlinux.structpage import StructPages

BYTES_MAX = 64 << 20
"""Size of buffers.jsonl at which looking ends: a kernel may write registers for ever."""


class BufferWatcher:
    """Writes ``out`` (buffers.jsonl); see qemu_model/buffers.py for what the facts mean.

    ``ram`` is the file of the machine's RAM.  No method raises for what the kernel under
    test has done; InfrastructureError if ``out`` cannot be written.
    """

    def __init__(self, plan: FlushPlan, ram: Path, out: Path) -> None:
        self._kernel = plan.kernel
        self._ram_path = ram
        self._ram: Ram | None = None
        self._pages: StructPages | None = None
        self._holds: dict[int, Stop] = {}
        """By PE: where the buffer was announced that it has now."""
        self._count = 0
        self._last = 0
        """The number of the last call's look, 0 if it made none."""
        self._out = WatchFile(out, version=VERSION, page_shift=self._kernel.page_shift)
        if self._kernel.pages is None:
            self._out.give_up(self._kernel.no_pages)

    def look(self, why: Why, stop: Stop) -> None:
        """Look at the buffer of ``stop.hdbssbr``."""
        self._last = 0
        if why is Why.ANNOUNCED:
            self._holds[stop.pe] = stop
        elif why is Why.WITHDRAWN:
            self._holds.pop(stop.pe, None)
        self._out.bound(BYTES_MAX)
        if not self._out.usable:
            return
        self._count += 1
        self._last = self._count
        self._out.write(look_line(self._look(why, stop)))

    def late(self) -> None:
        """The last call came too late: the PE had not waited for its end."""
        if self._last:
            self._out.other(late=self._last)
        self._last = 0

    def close(self) -> None:
        """Look at the buffers that PEs have still, and write the end; the machine has ended."""
        for stop in tuple(self._holds.values()):
            self.look(Why.END, stop)
        self._holds.clear()
        self._out.close(self._count)
        if self._ram is not None:
            self._ram.close()

    def _look(self, why: Why, stop: Stop) -> BufferLook:
        base = hdbss_base(stop.hdbssbr)
        first, frames = frames_of(stop.hdbssbr, self._kernel.page_shift)
        found = BufferLook(
            self._count, why, stop.pe, stop.seq, self._kernel.place(stop.pc), stop.hdbssbr,
            first=first, frames=frames,
        )  # fmt: skip
        if sz_reserved(stop.hdbssbr):
            return replace(found, error=f"HDBSSBR_EL2={stop.hdbssbr:#x} has a reserved SZ")
        end = base + ENTRY_BYTES * hdbss_capacity(stop.hdbssbr)
        try:
            pages = self._struct_pages()
            assert self._ram is not None
            if base < self._ram.base or end > self._ram.base + self._ram.size:
                raise Unreadable(f"the buffer [{base:#x}, {end:#x}) is not in RAM")
            seen = pages.look(found.first, found.frames)
        except Unreadable as error:
            return replace(found, error=str(error))
        return replace(
            found, runs=seen.runs, owner=seen.owner, free=seen.free, zero=pages.zero_frame
        )

    def _struct_pages(self) -> StructPages:
        """Tried again at the next look where it fails: early in a boot there is nothing yet."""
        if self._pages is None:
            assert self._kernel.pages is not None
            if self._ram is None:
                self._ram = Ram(self._ram_path)
            memory = KernelMemory(self._ram, self._kernel)
            self._pages = StructPages(memory, self._kernel.pages, self._kernel.page_shift)
        return self._pages
