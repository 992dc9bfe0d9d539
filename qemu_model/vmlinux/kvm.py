# SPDX-License-Identifier: GPL-2.0-or-later
"""A running kernel's VMs, their memory slots and dirty bitmaps, as its memory has them.

Other PEs run on while we look.  The tree of the active memory slots is not changed in
place (KVM has two, and swaps them), so a look counts only if the same one is active
before and after it.  Every list and tree is walked with a bound.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from qemu_model.arch.entry import IPA, LEVEL_MAX, TTWL, ttwl_to_level
from qemu_model.vmlinux.kernelmap import KernelMap
from qemu_model.vmlinux.memory import KernelMemory, Unreadable
from qemu_model.vmlinux.srcu import Readers, read_readers

VMS_MAX = 256
SLOTS_MAX = 4096
PAGES_MAX = 1 << 20
"""Pages that one look examines: 4 GB of a guest with 4 KB pages."""
LOOKS_MAX = 1 << 16
"""Pieces of bitmaps that one look reads."""
_ATTEMPTS = 4
_PATIENCE = 0.5
"""Seconds after which a look is not begun again."""
_BADDR = 0xFFFF_FFFF_FFFE
"""VTTBR_EL2.BADDR; bit 0 is CnP, the VMID stands above."""
_LOG_DIRTY_PAGES = 1
"""KVM_MEM_LOG_DIRTY_PAGES"""
_FRAMES_MAX = 1 << 40
"""No guest has more: 2^52 bytes."""
_PIECE = 1 << 15
"""Pages of a slot whose bits are read at a time."""
_LEAF = 7
"""Bits 3:0 of a valid entry for a page: TTWL 3."""


@dataclass(frozen=True)
class MemSlot:
    """One struct kvm_memory_slot: frame numbers and counts of pages.

    ``bitmap`` is the virtual address of its dirty bitmap, 0 where pages are not logged.
    """

    number: int
    base: int
    pages: int
    bitmap: int


@dataclass(frozen=True)
class Look:
    """What the bitmaps say of the pages that entries name, as guest frame numbers.

    ``unlogged`` counts the pages of entries that are in no slot with a bitmap, ``invalid``
    the entries that name no page at all.  ``readers`` is what was counted before and after
    the bits were read, None where it cannot be.
    """

    dirty: list[int]
    clean: list[int]
    unlogged: int
    invalid: int
    readers: tuple[Readers, Readers] | None = None


class Kvm:
    """What KVM keeps in the memory of one kernel; all methods raise Unreadable."""

    def __init__(self, memory: KernelMemory, kernel: KernelMap) -> None:
        self._memory = memory
        self._kernel = kernel
        self._at = kernel.offsets

    def find_vm(self, vttbr: int) -> int:
        """The struct kvm whose stage 2 table VTTBR_EL2 names."""
        head = self._kernel.vm_list
        link, pgd_at = self._at["kvm.vm_list"], self._at["kvm.arch.mmu.pgd_phys"]
        node = head
        for _ in range(VMS_MAX):
            node = self._memory.number(node + self._at["list_head.next"])
            if node == head:
                raise Unreadable(f"no VM has the stage 2 table of VTTBR_EL2={vttbr:#x}")
            vm = node - link
            if self._memory.number(vm + pgd_at) & _BADDR == vttbr & _BADDR:
                return vm
        raise Unreadable(f"vm_list has more than {VMS_MAX} VMs")

    def slots(self, vm: int) -> tuple[MemSlot, ...]:
        """The active memory slots of a VM in the order of their addresses."""
        tree = self._active(vm)
        root = self._memory.number(tree[0] + self._at["kvm_memslots.gfn_tree.rb_node"])
        index = self._memory.number(tree[0] + self._at["kvm_memslots.node_idx"], 4)
        if index > 1:
            raise Unreadable(f"kvm_memslots.node_idx is {index}")
        within = self._at["kvm_memory_slot.gfn_node"]
        within += index * self._at["kvm_memory_slot.gfn_node[]"]
        found = [self._slot(node - within) for node in self._nodes(root)]
        if self._active(vm) != tree:
            raise Unreadable("the memory slots changed while they were read")
        return tuple(sorted(found, key=lambda slot: slot.base))

    def look(self, vttbr: int, entries: Sequence[int]) -> tuple[tuple[MemSlot, ...], Look]:
        """The slots of the VM that VTTBR_EL2 names, and their bits for these entries."""
        end = time.monotonic() + _PATIENCE
        for attempt in range(_ATTEMPTS):
            self._memory.forget()
            try:
                vm = self.find_vm(vttbr)
                slots = self.slots(vm)
                first = self._readers(vm)
                found = self._bits(slots, entries)
                last = self._readers(vm)
                if self.slots(vm) == slots:
                    known = None if first is None or last is None else (first, last)
                    return slots, replace(found, readers=known)
            except Unreadable:
                if attempt == _ATTEMPTS - 1 or time.monotonic() > end:
                    raise
        raise Unreadable("the memory slots do not stand still")

    def _readers(self, vm: int) -> Readers | None:
        try:
            where = self._kernel.srcu
            return None if where is None else read_readers(self._memory, where, vm)
        except Unreadable:
            return None

    def _active(self, vm: int) -> tuple[int, int]:
        """Address and generation of the active struct kvm_memslots."""
        slots = self._memory.number(vm + self._at["kvm.memslots"])
        return slots, self._memory.number(slots + self._at["kvm_memslots.generation"])

    def _nodes(self, root: int) -> Iterator[int]:
        waiting, seen = [root], 0
        while waiting:
            node = waiting.pop()
            if not node:
                continue
            seen += 1
            if seen > SLOTS_MAX:
                raise Unreadable(f"a VM has more than {SLOTS_MAX} memory slots")
            waiting += [
                self._memory.number(node + self._at["rb_node.rb_left"]),
                self._memory.number(node + self._at["rb_node.rb_right"]),
            ]
            yield node

    def _slot(self, address: int) -> MemSlot:
        def field(name: str, size: int = 8) -> int:
            return self._memory.number(address + self._at[f"kvm_memory_slot.{name}"], size)

        logged = field("flags", 4) & _LOG_DIRTY_PAGES
        bitmap = field("dirty_bitmap") if logged else 0
        base, pages = field("base_gfn"), field("npages")
        if base + pages > _FRAMES_MAX:
            raise Unreadable(f"what should be a memory slot has {pages} pages at frame {base:#x}")
        return MemSlot(field("id", 2), base, pages, bitmap)

    def _bits(self, slots: tuple[MemSlot, ...], entries: Sequence[int]) -> Look:
        shift = self._kernel.page_shift
        frames = IPA.mask >> shift
        leaves = sorted({entry >> shift & frames for entry in entries if entry & 0xF == _LEAF})
        blocks: list[tuple[int, int]] = []
        invalid = 0
        for entry in {entry for entry in entries if entry & 0xF != _LEAF}:
            level = ttwl_to_level(TTWL.get(entry))
            if not entry & 1 or not 0 <= level <= LEVEL_MAX:
                invalid += 1
                continue
            size = 1 << (shift - 3) * (LEVEL_MAX - level)
            first = (entry >> shift & frames) & -size
            blocks.append((first, first + size))
        dirty: set[int] = set()
        clean: set[int] = set()
        reader = _Bitmaps(self._memory, dirty, clean)
        logged = 0
        for slot in slots:
            if not slot.bitmap:
                continue
            low, high = slot.base, slot.base + slot.pages
            mine = leaves[bisect_left(leaves, low) : bisect_left(leaves, high)]
            logged += len(mine)
            reader.examine(slot, mine)
            for first, end in blocks:
                part = range(max(first, low), min(end, high))
                logged += len(part)
                reader.examine(slot, part)
        pages = len(leaves) + sum(end - first for first, end in blocks)
        return Look(sorted(dirty), sorted(clean), max(0, pages - logged), invalid)


class _Bitmaps:
    """Sorts pages into dirty and clean ones."""

    def __init__(self, memory: KernelMemory, dirty: set[int], clean: set[int]) -> None:
        self._memory, self._dirty, self._clean = memory, dirty, clean
        self._pages = 0
        self._looks = 0

    def examine(self, slot: MemSlot, frames: Sequence[int]) -> None:
        """Look at the bits of ascending ``frames``, all of which are the slot's."""
        self._pages += len(frames)
        if self._pages > PAGES_MAX:
            raise Unreadable(f"the entries of one flush name more than {PAGES_MAX} pages")
        at = 0
        while at < len(frames):
            self._looks += 1
            if self._looks > LOOKS_MAX:
                raise Unreadable("the entries of one flush are too far apart")
            first = (frames[at] - slot.base) // _PIECE * _PIECE
            end = bisect_left(frames, slot.base + first + _PIECE, at)
            self._piece(slot, frames[at:end])
            at = end

    def _piece(self, slot: MemSlot, frames: Sequence[int]) -> None:
        base = slot.base
        start = frames[0] - base >> 3
        bits = self._memory.read(slot.bitmap + start, (frames[-1] - base >> 3) + 1 - start)
        base += start * 8
        dirty = [f for f in frames if bits[f - base >> 3] >> (f - base & 7) & 1]
        self._dirty.update(dirty)
        if len(dirty) < len(frames):
            self._clean.update(set(frames).difference(dirty))
