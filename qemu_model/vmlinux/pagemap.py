# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a kernel keeps its struct page for a page frame, and what the members mean.

Made from a vmlinux: symbols, and the structures that a source file of KVM knows; only what
marks a free block is looked for in files of the memory management.  Nothing is assumed
of the layout of the kernel's addresses: ``mem_section`` leads to the array of struct page
(CONFIG_SPARSEMEM_VMEMMAP, which arm64 always has).
"""

from __future__ import annotations

from dataclasses import dataclass

from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.layout import LayoutError, Structures

_SOURCE = "virt/kvm/kvm_main.c"
_ALLOCATOR = ("mm/page_alloc.c", "arch/arm64/mm/mmu.c")
"""Files that know the constants of page_type; the default kernel's vmlinux describes one."""
_POINTER = 8
_WORDS = {"_refcount": 4, "page_type": 4, "mapping": 8, "compound_head": 8, "private": 8}
"""Members of struct page, with the bytes that the reader takes them for."""
_BUDDY = ("pagetype", "PGTY_buddy")
"""The value of page_type's upper byte in the first page of a free block (from 6.12 on)."""


@dataclass(frozen=True)
class PageMap:
    """Addresses are virtual, sizes and offsets in bytes."""

    mem_section: int
    indirect: bool
    """``mem_section`` is a pointer to an array of pointers (SPARSEMEM_EXTREME), not an array."""
    section_size: int
    section_map: int
    """Offset of mem_section.section_mem_map."""
    size: int
    """sizeof(struct page)"""
    refcount: int
    page_type: int
    mapping: int
    compound_head: int
    private: int
    orders: int
    """Sizes of free blocks: 1, 2, 4 .. 2^(orders - 1) pages."""
    buddy: int | None
    """What page_type >> 24 is in the first page of a free block; None where it is not known."""
    zero_page: int
    """``empty_zero_page``"""


def read_page_map(vmlinux: Vmlinux) -> PageMap:
    """Read all of it; LayoutError or UsageError with what is missing."""
    structures = Structures(vmlinux, _SOURCE)
    size = structures.size("page")
    offsets: dict[str, int] = {}
    for name, expected in _WORDS.items():
        member = structures.member(f"page.{name}")
        if member.size != expected or member.offset % expected or size % expected:
            raise LayoutError(
                f"vmlinux {vmlinux.path}: page.{name} has {member.size} bytes at {member.offset}"
            )
        offsets[name] = member.offset
    section = structures.member("mem_section.section_mem_map")
    symbol = vmlinux.find("mem_section")
    if symbol is None or section.size != _POINTER:
        raise LayoutError(f"vmlinux {vmlinux.path}: its memory model is not SPARSEMEM")
    buddy, orders = _free_blocks(vmlinux)
    return PageMap(
        mem_section=symbol.address,
        indirect=symbol.size == _POINTER,
        section_size=structures.size("mem_section"),
        section_map=section.offset,
        size=size,
        refcount=offsets["_refcount"],
        page_type=offsets["page_type"],
        mapping=offsets["mapping"],
        compound_head=offsets["compound_head"],
        private=offsets["private"],
        orders=orders,
        buddy=buddy,
        zero_page=vmlinux.address("empty_zero_page"),
    )


def _free_blocks(vmlinux: Vmlinux) -> tuple[int | None, int]:
    """``buddy`` and ``orders``, from the first file that has both."""
    for source in _ALLOCATOR:
        try:
            structures = Structures(vmlinux, source)
            areas = structures.member("zone.free_area")
            buddy = structures.enumerator(*_BUDDY)
        except LayoutError:
            continue
        if buddy is not None and areas.stride:
            return buddy, areas.size // areas.stride
    return None, 0
