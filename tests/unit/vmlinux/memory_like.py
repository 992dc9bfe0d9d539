# SPDX-License-Identifier: GPL-2.0-or-later
"""A file of RAM that looks like that of a running kernel: tables, slots, bitmaps, struct page."""

import mmap
from dataclasses import dataclass, replace
from pathlib import Path

from qemu_model.vmlinux.kernelmap import KernelMap
from qemu_model.vmlinux.memory import RAM_BASE
from qemu_model.vmlinux.pagemap import PageMap
from qemu_model.vmlinux.srcu import SrcuMap

SIZE = 32 << 20
LOAD = 2 << 20
TEXT = 0xFFFF_8000_8000_0000
BANNER_AT, SWAPPER, VM_LIST = TEXT + 0x2_0000, TEXT + 0x10_0000, TEXT + 0x3_0000
BANNER = b"Linux version 6.12.0 (a@b) #1\n"
PGD = 0x4_1F00_0000
VTTBR = 7 << 48 | PGD | 1
"""VMID 7, CnP."""
OFFSETS = {
    "kvm.vm_list": 0x40,
    "kvm.memslots": 0x58,
    "kvm.arch.mmu.pgd_phys": 0x80,
    "kvm_memslots.gfn_tree.rb_node": 0x20,
    "kvm_memslots.generation": 0,
    "kvm_memslots.node_idx": 0x30,
    "kvm_memory_slot.gfn_node": 0x10,
    "kvm_memory_slot.gfn_node[]": 24,
    "kvm_memory_slot.base_gfn": 0x48,
    "kvm_memory_slot.npages": 0x50,
    "kvm_memory_slot.dirty_bitmap": 0x58,
    "kvm_memory_slot.flags": 0x60,
    "kvm_memory_slot.id": 0x64,
    "rb_node.rb_left": 16,
    "rb_node.rb_right": 8,
    "list_head.next": 0,
}
MEM_SECTION, ZERO_PAGE = TEXT + 0x4_0000, TEXT + 0x5_0000
PAGES = PageMap(
    mem_section=MEM_SECTION,
    indirect=True,
    section_size=32,
    section_map=8,
    size=64,
    refcount=52,
    page_type=48,
    mapping=24,
    compound_head=8,
    private=40,
    orders=11,
    buddy=0xF0,
    zero_page=ZERO_PAGE,
)
PER_CPU = TEXT + 0x6_0000
SRCU = SrcuMap(per_cpu=PER_CPU, cpus=4, data=0x90, locks=0, unlocks=16, stride=8, owner=0x98)
VMEMMAP = 0xFFFF_FDFF_BF00_0000
"""Where struct page of frame 0 would be."""
UNTYPED, BUDDY = 0xFFFF_FFFF, 0xF000_0000
"""page.page_type of most pages, and of the first one of a free block."""


@dataclass
class Slot:
    """A memory slot to be made; ``logged`` gives it a bitmap."""

    number: int
    base: int
    pages: int
    logged: bool = True


class FakeKernel:
    """A kernel with tables of ``va_bits`` bits; what it holds is written as it is asked for."""

    def __init__(self, path: Path, page_shift: int = 12, va_bits: int = 48) -> None:
        self.path = path
        self.shift, self.va_bits = page_shift, va_bits
        self.text = TEXT if va_bits >= 47 else (-1 << va_bits - 1) % (1 << 64) + (2 << 30)
        path.write_bytes(b"")
        with path.open("r+b") as file:
            file.truncate(SIZE)
            self.ram = mmap.mmap(file.fileno(), SIZE)
        self._free = RAM_BASE + (8 << 20)
        self._heap = (-1 << va_bits - 1) % (1 << 64) + (4 << 30)
        self._mapped: dict[int, int] = {}
        moved = self.text - TEXT
        self.kernel = KernelMap(
            text=self.text,
            load_offset=LOAD,
            swapper=SWAPPER + moved,
            vm_list=VM_LIST + moved,
            banner_at=BANNER_AT + moved,
            banner=BANNER,
            page_shift=page_shift,
            offsets=OFFSETS,
            places={0x1234: "drain+0x10"},
        )
        for address in (self.kernel.banner_at, self.kernel.vm_list, self.kernel.swapper):
            page = address >> page_shift << page_shift
            if page not in self._mapped:
                self.map(page, page - self.text + RAM_BASE + LOAD)
        self.put(self.kernel.banner_at, BANNER)
        self.put(self.kernel.vm_list, self.kernel.vm_list)
        self.bitmaps: dict[int, int] = {}
        """Virtual address by number of the slot."""
        self.slots_at = 0
        self._counters: dict[int, int] = {}
        self.vm = 0

    def add_struct_pages(self, pages: PageMap = PAGES) -> None:
        """Have struct page for all of RAM, each in use once; ``mem_section`` leads to them."""
        self.kernel = replace(self.kernel, pages=pages, no_pages="")
        for at in range(MEM_SECTION, MEM_SECTION + 0x3000, 1 << self.shift):
            self.map(at, at - self.text + RAM_BASE + LOAD)
        first = RAM_BASE >> self.shift
        end = first + (SIZE >> self.shift)
        for at in range(VMEMMAP + 64 * first, VMEMMAP + 64 * end, 1 << self.shift):
            self.map(at, self.page())
        for frame in range(first, end):
            self.set_page(frame)
        sections = MEM_SECTION
        if pages.indirect:
            roots, sections = self.alloc(1 << self.shift), self.alloc(1 << self.shift)
            self.put(MEM_SECTION, roots)
            self.put(roots + 8, sections)
        for number in (3, 4):
            self.put(sections + 32 * number + 8, VMEMMAP | 0x1F)

    def add_readers(self, where: SrcuMap = SRCU) -> None:
        """Have the last VM count its readers on CPUs 0 and 2; the others are not there."""
        self.kernel = replace(self.kernel, srcu=where, no_srcu="")
        page = PER_CPU >> self.shift << self.shift
        self.map(page, page - self.text + RAM_BASE + LOAD)
        self._counters = {cpu: self.alloc(0x40) for cpu in (0, 2)}
        base = self._counters[0] - 0x1000
        self.put(self.vm + where.data, base)
        for cpu, at in self._counters.items():
            self.put(PER_CPU + 8 * cpu, at - base)

    def count(self, cpu: int, half: int, taken: int, left: int) -> None:
        """Set how often a CPU has entered and left read-side critical sections."""
        assert self.kernel.srcu is not None
        at = self._counters[cpu] + half * self.kernel.srcu.stride
        self.put(at + self.kernel.srcu.locks, taken)
        self.put(at + self.kernel.srcu.unlocks, left)

    def set_page(self, frame: int, **fields: int) -> None:
        """Set members of a struct page; those that are not named are as in a page in use."""
        values = {"refcount": 1, "page_type": UNTYPED, "mapping": 0, "compound_head": 0,
                  "private": 0} | fields  # fmt: skip
        for name, value in values.items():
            size = 4 if name in ("refcount", "page_type") else 8
            self.put(VMEMMAP + 64 * frame + getattr(PAGES, name), value, size)

    def physical(self, pa: int, data: bytes) -> None:
        """Write at a physical address."""
        self.ram[pa - RAM_BASE : pa - RAM_BASE + len(data)] = data

    def page(self) -> int:
        """A fresh physical page."""
        self._free = -(-self._free >> self.shift << self.shift)
        self._free += 1 << self.shift
        return self._free - (1 << self.shift)

    def map(self, address: int, pa: int, level: int = 3) -> None:
        """Enter a page, or a block at ``level``, into the tables."""
        step = self.shift - 3
        at = 4 - -(-(self.va_bits - self.shift) // step)
        table = self.kernel.swapper - self.text + RAM_BASE + LOAD
        left = address & (1 << self.va_bits) - 1
        while True:
            low = self.shift + step * (3 - at)
            slot = table + 8 * (left >> low)
            if at == level:
                self.physical(slot, (pa | 0x700 | (3 if level == 3 else 1)).to_bytes(8, "little"))
                self._mapped[address] = pa
                return
            start = slot - RAM_BASE
            found = int.from_bytes(self.ram[start : start + 8], "little")
            if not found:
                found = self.page() | 3
                self.physical(slot, found.to_bytes(8, "little"))
            table = found >> self.shift << self.shift
            left &= (1 << low) - 1
            at += 1

    def alloc(self, size: int) -> int:
        """Mapped memory at a virtual address, in physical pages that are not neighbours."""
        address = self._heap
        for at in range(0, size, 1 << self.shift):
            self.page()
            self.map(address + at, self.page())
        self._heap += (-(-size >> self.shift) + 1) << self.shift
        return address

    def put(self, address: int, value: int | bytes, size: int = 8) -> None:
        """Write a number or bytes at a virtual address; bytes may not cross a page."""
        data = value if isinstance(value, bytes) else value.to_bytes(size, "little")
        within = address & (1 << self.shift) - 1
        self.physical(self._mapped[address - within] + within, data)

    def add_vm(self, slots: list[Slot], pgd: int = PGD, index: int = 0) -> int:
        """Make a VM with these slots, whose tree uses the nodes ``index``."""
        vm, self.slots_at = self.alloc(0x100), self.alloc(0x100)
        self.vm = vm
        link = vm + OFFSETS["kvm.vm_list"]
        start = self.kernel.vm_list - self.text + LOAD
        self.put(link, int.from_bytes(self.ram[start : start + 8], "little"))
        self.put(self.kernel.vm_list, link)
        self.put(vm + OFFSETS["kvm.arch.mmu.pgd_phys"], pgd)
        self.put(vm + OFFSETS["kvm.memslots"], self.slots_at)
        self.put(self.slots_at + OFFSETS["kvm_memslots.node_idx"], index, 4)
        nodes = [self._add_slot(slot, index) for slot in slots]
        root = self.slots_at + OFFSETS["kvm_memslots.gfn_tree.rb_node"]
        self.put(root, self._tree(nodes))
        return vm

    def _add_slot(self, slot: Slot, index: int) -> int:
        at = self.alloc(0x100)
        self.put(at + OFFSETS["kvm_memory_slot.base_gfn"], slot.base)
        self.put(at + OFFSETS["kvm_memory_slot.npages"], slot.pages)
        self.put(at + OFFSETS["kvm_memory_slot.id"], slot.number, 2)
        if slot.logged:
            self.bitmaps[slot.number] = self.alloc(max(8, slot.pages // 8 + 8))
            self.put(at + OFFSETS["kvm_memory_slot.dirty_bitmap"], self.bitmaps[slot.number])
            self.put(at + OFFSETS["kvm_memory_slot.flags"], 1, 4)
        return at + OFFSETS["kvm_memory_slot.gfn_node"] + 24 * index

    def _tree(self, nodes: list[int]) -> int:
        if not nodes:
            return 0
        middle = len(nodes) // 2
        self.put(nodes[middle] + OFFSETS["rb_node.rb_left"], self._tree(nodes[:middle]))
        self.put(nodes[middle] + OFFSETS["rb_node.rb_right"], self._tree(nodes[middle + 1 :]))
        return nodes[middle]

    def set_bits(self, slot: int, *pages: int) -> None:
        """Make pages of a slot dirty."""
        for page in pages:
            at = self.bitmaps[slot] + (page >> 3)
            within = at & (1 << self.shift) - 1
            start = self._mapped[at - within] + within - RAM_BASE
            self.ram[start] |= 1 << (page & 7)

    def clear_bits(self, slot: int) -> None:
        """Make all pages of a slot clean that are in the first page of its bitmap."""
        start = self._mapped[self.bitmaps[slot]] - RAM_BASE
        self.ram[start : start + (1 << self.shift)] = bytes(1 << self.shift)
