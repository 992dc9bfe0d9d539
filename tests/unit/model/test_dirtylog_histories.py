# SPDX-License-Identifier: GPL-2.0-or-later
"""Random histories of a kernel under a guest that runs all the time: what is right owes nothing."""

import random
from collections.abc import Iterable
from enum import Enum, auto

from qemu_model.model.dirtylog import SlotLog

PAGES = 4
RUNS = 2000


class Leaf(Enum):
    """A page's stage 2 descriptor."""

    READ_ONLY = auto()
    CLEAN = auto()
    DIRTY = auto()


class Kernel:
    """One slot of a kernel; its guest stores, and buffers are drained, in the middle of all."""

    def __init__(self, seed: int, drops: float) -> None:
        self.rng = random.Random(seed)
        self.drops = drops
        """How often an entry is dropped."""
        self.dropped = False
        self.manual, self.spurious, from_start = (self.often(0.5) for _ in range(3))
        initially_set = self.manual and self.often(0.5)
        first = Leaf.CLEAN if from_start else Leaf.READ_ONLY
        self.leaves = [
            Leaf.DIRTY if initially_set and self.often(0.5) else first for _ in range(PAGES)
        ]
        self.bits = set(range(PAGES)) if initially_set else set()
        self.buffer: list[int] = []
        self.stale: set[int] = set()
        """Pages that are clean, but dirty in the TLB still."""
        self.reported: set[int] = set()
        self.content, self.compared = [0] * PAGES, [0] * PAGES
        self.running = True
        self.line, self.ran = 2, 3
        self.log = SlotLog(0, 0, PAGES, manual=self.manual)
        self.log.set_logging(1, True)
        self.log.snapshot(2)

    def often(self, probability: float) -> bool:
        return self.rng.random() < probability

    def meanwhile(self) -> None:
        while self.running and self.often(0.5):
            if self.often(0.8):
                self.store(self.rng.randrange(PAGES))
            elif self.often(0.8):
                self.drain()
            elif self.spurious:
                self.bits.add(self.rng.randrange(PAGES))

    def store(self, page: int) -> None:
        self.content[page] += 1
        if page in self.stale:
            return
        if self.leaves[page] is Leaf.CLEAN:
            self.buffer.append(page)
            self.log.appended(self.line, [page], self.line)
        elif self.leaves[page] is Leaf.READ_ONLY:
            self.bits.add(page)
        self.leaves[page] = Leaf.DIRTY

    def drain(self) -> None:
        kept = [page for page in self.buffer if not self.often(self.drops)]
        self.dropped |= len(kept) < len(self.buffer)
        self.bits.update(kept)
        self.buffer.clear()

    def protect(self, pages: Iterable[int]) -> None:
        for page in pages:
            self.meanwhile()
            if self.leaves[page] is Leaf.DIRTY:
                self.leaves[page] = Leaf.CLEAN
                self.stale.add(page)
        self.meanwhile()
        self.stale.clear()

    def get(self) -> None:
        self.drain()
        self.meanwhile()
        self.reported = set(self.bits)
        if not self.manual:
            self.bits.clear()
            self.protect(self.reported)
        self.meanwhile()
        self.log.read(self.line, frozenset(self.reported), not self.running)

    def clear(self) -> None:
        self.drain()
        asked = {page for page in self.reported if self.often(0.7)}
        taken = []
        for page in asked:
            self.meanwhile()
            if page in self.bits:
                self.bits.remove(page)
                taken.append(page)
        self.protect(taken)
        self.log.cleared(self.line, frozenset(asked))

    def compare(self) -> None:
        changed = set()
        for page in range(PAGES):
            self.meanwhile()
            if self.content[page] != self.compared[page]:
                self.compared[page] = self.content[page]
                changed.add(page)
        self.meanwhile()
        self.log.compared(self.line, frozenset(changed), self.ran)
        self.ran = self.line + 1

    def end(self) -> None:
        self.running = False
        self.line += 1
        self.compare()
        self.line += 1
        self.get()


def history(seed: int, drops: float = 0.0) -> Kernel:
    kernel = Kernel(seed, drops)
    operations = [kernel.get, kernel.compare, kernel.meanwhile]
    if kernel.manual:
        operations.append(kernel.clear)
    for _ in range(kernel.rng.randrange(3, 14)):
        kernel.line += 1
        kernel.rng.choice(operations)()
    kernel.end()
    return kernel


def test_a_kernel_that_is_right_owes_nothing() -> None:
    assert [seed for seed in range(RUNS) if history(seed).log.lost()] == []


def test_a_kernel_that_drops_entries_is_found() -> None:
    """Not always: another entry, or a clear after which userspace copies, pays for some."""
    wrong = [kernel for seed in range(RUNS) if (kernel := history(seed, drops=0.1)).dropped]
    found = [kernel for kernel in wrong if kernel.log.lost()]
    assert len(found) > 0.7 * len(wrong) > 100
