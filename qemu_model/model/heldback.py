# SPDX-License-Identifier: GPL-2.0-or-later
"""When software sees what a PE has appended: at once, or after barriers (C14)."""

from typing import Protocol

from qemu_model.arch.registers import ProdFsc
from qemu_model.model.producer import Producer

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


class HeldBack:
    """The entries of a PE that have not reached memory, and what reads of INDEX show.

    ``late`` is ``Visibility.DSB``; without it nothing is held back.
    """

    def __init__(self, producer: Producer, late: bool) -> None:
        self._producer = producer
        self._late = late
        self._entries: list[tuple[int, int]] = []
        self._uncounted = 0
        self._shown = producer.hdbssprod

    @property
    def outstanding(self) -> int:
        """Entries that have not reached memory."""
        return len(self._entries)

    @property
    def hdbssprod(self) -> int:
        """HDBSSPROD_EL2 as a direct read shows it (R_RYKVL, I_XXFYP)."""
        return self._shown if self._late else self._producer.hdbssprod

    def written(self) -> None:
        """Software has written HDBSSPROD_EL2: it sees that at once."""
        self._shown = self._producer.hdbssprod
        self._uncounted = 0

    def entry(self, memory: Memory, slot: int, entry: int) -> ProdFsc:
        """Write an entry, or hold it back; the fault if there is no memory for it."""
        if not self._late:
            return memory.write64(slot, entry)
        if memory.read64(slot) is None:
            return ProdFsc.EXTERNAL_ABORT
        if self.outstanding == 2 * OUTSTANDING_MAX:
            self._publish_oldest(memory)
        self._entries.append((slot, entry))
        self._uncounted += 1
        return ProdFsc.NONE

    def take_back(self) -> None:
        """The newest entry is not counted in INDEX after all."""
        if self._late:
            self._entries.pop()
            self._uncounted -= 1

    def bound(self, memory: Memory) -> None:
        """Hold back no more than a PE does."""
        while self.outstanding > OUTSTANDING_MAX:
            self._publish_oldest(memory)

    def publish(self, memory: Memory) -> int:
        """Let all entries reach memory (R_CGCHP); returns how many there were.

        An entry whose write fails only here is lost, which FSC tells.
        """
        count = self.outstanding
        while self._entries:
            self._publish_oldest(memory)
        return count

    def _publish_oldest(self, memory: Memory) -> None:
        slot, value = self._entries.pop(0)
        self._uncounted = min(self._uncounted, self.outstanding)
        fault = memory.write64(slot, value)
        if fault:
            self._producer.fail(fault)

    def synchronize(self) -> bool:
        """Take a context synchronization event; whether reads show something else now.

        Increments for entries that are outstanding are not included (UNCONFIRMED).
        """
        before = self._shown
        self._shown = self._producer.hdbssprod - self._uncounted
        return self._late and self._shown != before
