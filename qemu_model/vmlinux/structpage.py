# SPDX-License-Identifier: GPL-2.0-or-later
"""What a running kernel's struct page say of page frames: who owns them, which are free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from qemu_model.buffers import PageRun
from qemu_model.pages import Ranges
from qemu_model.vmlinux.memory import KernelMemory, Unreadable
from qemu_model.vmlinux.pagemap import PageMap

FRAMES_MAX = 1 << 16
"""Frames that one look examines; the largest HDBSS buffer has 512 of 4 KB."""
_SECTIONS_MAX = 256
"""Sections that are looked at: all lead to the same array."""
_ROOTS_MAX = 512
_PRESENT = 3
"""SECTION_MARKED_PRESENT, SECTION_HAS_MEM_MAP"""
_MAP_FLAGS = 0xFFF
"""Bits of section_mem_map that may be flags: the array of a section is aligned to more."""
_TAIL = 1
"""Bit 0 of page.compound_head: the rest is the address of the first struct page."""


@dataclass(frozen=True)
class PageLook:
    """What was found of a range of frames.

    ``owner`` is the reference count that holds the first frame: its own one, or that of the
    compound page that it belongs to.  0 is: it is free.  (The other pages of an allocation
    that is not compound have 0 although they are in use.)
    """

    runs: tuple[PageRun, ...]
    owner: int
    free: Ranges | None
    """Frames that are in blocks of the buddy allocator; None where that cannot be known."""


class StructPages:
    """Reads struct page; all methods raise Unreadable.

    The tables that map them do not change, so nothing has to be forgotten.
    """

    def __init__(self, memory: KernelMemory, pages: PageMap, page_shift: int) -> None:
        self._memory, self._map, self._shift = memory, pages, page_shift
        self._base = self._find_base()
        self.zero_frame = memory.image(pages.zero_page) >> page_shift
        """The frame of empty_zero_page."""
        zero = self._read(self.zero_frame, 1)
        if not self._refcount(zero) or self._head(zero) >= 0:
            raise Unreadable("what should be struct page says that the zero page is free")

    def look(self, first: int, count: int) -> PageLook:
        """What struct page say of ``count`` frames from ``first`` on."""
        if not 0 < count <= FRAMES_MAX:
            raise Unreadable(f"{count} page frames are not looked at")
        data = self._read(first, count)
        words, halves = memoryview(data).cast("Q"), memoryview(data).cast("I")
        refcounts = self._column(halves, self._map.refcount, 4)
        types = self._column(halves, self._map.page_type, 4)
        mapped = [mapping != 0 for mapping in self._column(words, self._map.mapping, 8)]
        links = self._column(words, self._map.compound_head, 8)
        heads = [self._frame(link - _TAIL) if link & _TAIL else -1 for link in links]
        runs = tuple(
            PageRun(sum(1 for _ in group), *key)
            for key, group in groupby(zip(refcounts, types, mapped, heads, strict=True))
        )
        owner = refcounts[0]
        if heads[0] >= 0:
            owner = self._refcount(self._read(heads[0], 1))
        free = None
        if self._map.buddy is not None:
            privates = self._column(words, self._map.private, 8)
            free = tuple(self._free(first, types, privates))
        return PageLook(runs, owner, free)

    def _free(self, first: int, types: list[int], orders: list[int]) -> Iterator[tuple[int, int]]:
        """The free blocks; the first struct page of one has its type and its order."""
        last = first + len(types) - 1
        reach = first - 1
        for order in range(1, self._map.orders):
            # One that begins before the range and reaches into it.
            head = first & -(1 << order)
            if head == first:
                continue
            try:
                page = self._read(head, 1)
            except Unreadable:
                break  # below the first frame of memory
            size = self._block(self._number(page, self._map.page_type, 4),
                               self._number(page, self._map.private, 8))  # fmt: skip
            if head + size > first:
                reach = min(last, head + size - 1)
                yield first, reach
                break
        at = reach + 1
        while at <= last:
            size = self._block(types[at - first], orders[at - first])
            if size:
                yield at, min(last, at + size - 1)
            at += max(size, 1)

    def _block(self, page_type: int, order: int) -> int:
        """Frames of the free block whose first struct page this is, 0 if it is none."""
        if page_type >> 24 != self._map.buddy or order >= self._map.orders:
            return 0
        return 1 << order

    def _find_base(self) -> int:
        """The address that struct page of frame 0 would have: all sections say the same."""
        at, sections = self._map.mem_section, _SECTIONS_MAX
        if self._map.indirect:
            roots = self._memory.number(at)
            for root in range(_ROOTS_MAX):
                at = self._memory.number(roots + 8 * root) if roots else 0
                if at:
                    break
            else:
                raise Unreadable("mem_section leads to no section of memory")
            sections = min(sections, (1 << self._shift) // self._map.section_size)
        data = self._memory.read(at, sections * self._map.section_size)
        found = set()
        for start in range(0, len(data), self._map.section_size):
            value = self._number(data, start + self._map.section_map, 8)
            if value & _PRESENT == _PRESENT:
                found.add(value & ~_MAP_FLAGS)
        if len(found) != 1:
            raise Unreadable(
                f"mem_section leads to {len(found)} arrays of struct page: it needs one, "
                "CONFIG_SPARSEMEM_VMEMMAP"
            )
        return found.pop()

    def _column(self, numbers: memoryview[int], offset: int, size: int) -> list[int]:
        """One member of each struct page, ``size`` bytes at ``offset``."""
        return numbers[offset // size :: self._map.size // size].tolist()

    def _read(self, frame: int, count: int) -> bytes:
        return self._memory.read(self._base + frame * self._map.size, count * self._map.size)

    def _frame(self, address: int) -> int:
        """The frame of a struct page; Unreadable for an address that is of none."""
        frame, rest = divmod(address - self._base, self._map.size)
        if rest or frame < 0:
            raise Unreadable(f"{address:#x} in page.compound_head is no struct page")
        return frame

    def _refcount(self, page: bytes) -> int:
        return self._number(page, self._map.refcount, 4)

    def _head(self, page: bytes) -> int:
        link = self._number(page, self._map.compound_head, 8)
        return self._frame(link - _TAIL) if link & _TAIL else -1

    @staticmethod
    def _number(data: bytes, offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], "little")
