# SPDX-License-Identifier: GPL-2.0-or-later
"""All that is looked at in the kernel's memory while a PE stands still."""

from __future__ import annotations

from qemu_model.buffers import Why
from qemu_model.machine.bufferwatch import BufferWatcher
from qemu_model.machine.command import RunFiles
from qemu_model.machine.flushwatch import FlushPlan, FlushWatcher, Stop


class KernelWatch:
    """Hands each moment to those who look: one for the bitmaps, one for the buffers.

    ``stop.hdbssbr`` is HDBSSBR_EL2 as it was at the last guest entry for what concerns
    entries to be drained, and as it is now for all else.
    """

    def __init__(self, flushes: FlushWatcher, buffers: BufferWatcher) -> None:
        self._flushes, self._buffers = flushes, buffers
        self._last: tuple[FlushWatcher | BufferWatcher, ...] = ()
        """Those who have looked at the last call."""

    def drain_begins(self, stop: Stop) -> None:
        """MRS of HDBSSPROD_EL2 with INDEX not 0."""
        self._last = (self._buffers, self._flushes)
        self._buffers.look(Why.DRAIN, stop)
        self._flushes.drain_begins(stop)

    def flush(self, stop: Stop) -> None:
        """MSR of HDBSSPROD_EL2 with INDEX 0 where it is not 0."""
        self._last = (self._buffers, self._flushes)
        self._buffers.look(Why.FLUSH, stop)
        self._flushes.flush(stop)

    def returned(self, stop: Stop) -> None:
        """The function that ``--flush-symbol`` names returns."""
        self._last = (self._flushes,)
        self._flushes.returned(stop)

    def buffer(self, why: Why, stop: Stop) -> None:
        """Any other moment at which the PE's buffer is looked at."""
        self._last = (self._buffers,)
        self._buffers.look(why, stop)

    def late(self) -> None:
        """The last call came too late: the PE had not waited for its end."""
        for watcher in self._last:
            watcher.late()
        self._last = ()

    def close(self) -> None:
        """Write the ends."""
        try:
            self._buffers.close()
        finally:
            self._flushes.close()


def kernel_watch(plan: FlushPlan, files: RunFiles) -> KernelWatch:
    """What looks at the memory of the machine of a run directory, and writes it there."""
    flushes = FlushWatcher(plan, files.ram, files.flushes)
    return KernelWatch(flushes, BufferWatcher(plan, files.ram, files.buffers))
