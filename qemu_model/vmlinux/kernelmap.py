# SPDX-License-Identifier: GPL-2.0-or-later
"""What has to be known of a kernel to read its dirty bitmaps in the memory of its machine.

Made from a vmlinux: addresses of a few variables, the page size, offsets in a few
structures, where struct page and the counters of kvm->srcu are, and the names of the places
that access the registers of HDBSS.  Addresses are those of a kernel that was told ``nokaslr``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qemu_model.arch.registers import SysReg
from qemu_model.errors import UsageError
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.layout import LayoutError, Structures
from qemu_model.vmlinux.pagemap import PageMap, read_page_map
from qemu_model.vmlinux.sites import Role, find_sites
from qemu_model.vmlinux.srcu import SrcuMap, read_srcu_map

VERSION = 4
"""Of what ``dump`` writes; a new one when something is added."""
_SOURCE = "virt/kvm/kvm_main.c"
_OFFSETS = (
    "kvm.vm_list",
    "kvm.memslots",
    "kvm.arch.mmu.pgd_phys",
    "kvm_memslots.gfn_tree.rb_node",
    "kvm_memslots.generation",
    "kvm_memslots.node_idx",
    "kvm_memory_slot.gfn_node",
    "kvm_memory_slot.base_gfn",
    "kvm_memory_slot.npages",
    "kvm_memory_slot.dirty_bitmap",
    "kvm_memory_slot.flags",
    "kvm_memory_slot.id",
    "rb_node.rb_left",
    "rb_node.rb_right",
    "list_head.next",
)
_STRIDE = "kvm_memory_slot.gfn_node[]"
"""Key of the array's stride: a slot is in two trees, one of which is in use."""
_SIZES = {
    "kvm.memslots": 8,
    "kvm.arch.mmu.pgd_phys": 8,
    "kvm_memslots.generation": 8,
    "kvm_memslots.node_idx": 4,
    "kvm_memory_slot.base_gfn": 8,
    "kvm_memory_slot.npages": 8,
    "kvm_memory_slot.dirty_bitmap": 8,
    "kvm_memory_slot.flags": 4,
    "kvm_memory_slot.id": 2,
}
"""Bytes that the reader takes a member for; at least so large it has to be."""
_BANNER = "linux_banner"
_BANNER_BYTES = 256
_HEADER_BYTES = 64
_TEXT_OFFSET, _FLAGS_OFFSET = 8, 24
_BELOW_KERNEL = 0x20_0000
"""QEMU loads an Image with a small text_offset so much higher, above its own boot code."""
_PAGE_SHIFTS = {1: 12, 2: 14, 3: 16}
"""Documentation/arch/arm64/booting.rst: bits 2:1 of the flags in the Image header."""
_NAMED = (SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2, SysReg.VTCR_EL2)
_RET, _RETAA, _RETAB = 0xD65F03C0, 0xD65F0BFF, 0xD65F0FFF


@dataclass(frozen=True)
class KernelMap:
    """Addresses are virtual; ``offsets`` in bytes by the path of the member."""

    text: int
    """``_text``: the address of the Image's first byte."""
    load_offset: int
    """Where QEMU puts that byte, from the start of RAM."""
    swapper: int
    """``swapper_pg_dir``: the kernel's own stage 1 table."""
    vm_list: int
    banner_at: int
    banner: bytes
    """``linux_banner`` up to its NUL, by which memory is recognised."""
    page_shift: int
    offsets: Mapping[str, int]
    places: Mapping[int, str]
    """By address of an MSR or MRS of HDBSS: its place as ``symbol+0x10``."""
    pages: PageMap | None = None
    """Where its struct page are."""
    no_pages: str = "the kernel's map has none"
    """Why ``pages`` is None."""
    srcu: SrcuMap | None = None
    """Where readers of memory slots are counted."""
    no_srcu: str = "the kernel's map does not have it"
    """Why ``srcu`` is None."""

    def place(self, pc: int) -> str:
        """``symbol+offset`` where it is known, else the bare address."""
        return self.places.get(pc, f"{pc:#x}")


def read_map(vmlinux: Vmlinux) -> KernelMap:
    """Read all of it; LayoutError or UsageError with what is missing."""
    text, banner_at = vmlinux.address("_text"), vmlinux.address(_BANNER)
    banner = _bytes(vmlinux, banner_at, _BANNER_BYTES).partition(b"\0")[0]
    if not banner.startswith(b"Linux version "):
        raise LayoutError(f"vmlinux {vmlinux.path}: {_BANNER} is no banner")
    header = _bytes(vmlinux, text, _HEADER_BYTES)
    flags = int.from_bytes(header[_FLAGS_OFFSET : _FLAGS_OFFSET + 8], "little")
    offset = int.from_bytes(header[_TEXT_OFFSET : _TEXT_OFFSET + 8], "little")
    page_shift = _PAGE_SHIFTS.get(flags >> 1 & 3)
    if page_shift is None or flags & 1:
        raise LayoutError(f"vmlinux {vmlinux.path}: its Image header does not name a page size")
    structures = Structures(vmlinux, _SOURCE)
    members = {path: structures.member(path) for path in _OFFSETS}
    for path, size in _SIZES.items():
        if members[path].size < size:
            raise LayoutError(
                f"vmlinux {vmlinux.path}: {path} has {members[path].size} bytes, not {size}"
            )
    offsets = {path: member.offset for path, member in members.items()}
    offsets[_STRIDE] = members["kvm_memory_slot.gfn_node"].stride
    sites = find_sites(vmlinux)
    places = {
        address: vmlinux.name_of(address)
        for address in sites.of(Role.MSR, Role.MRS)
        if sites.by_address[address].register in _NAMED
    }
    pages, no_pages = None, ""
    try:
        pages = read_page_map(vmlinux)
    except (LayoutError, UsageError) as error:
        no_pages = str(error)  # the bitmaps can be read all the same
    srcu, no_srcu = None, ""
    try:
        srcu = read_srcu_map(vmlinux, structures)
    except (LayoutError, UsageError) as error:
        no_srcu = str(error)
    return KernelMap(
        text=text,
        load_offset=offset + (_BELOW_KERNEL if offset < 0x1000 else 0),
        swapper=vmlinux.address("swapper_pg_dir"),
        vm_list=vmlinux.address("vm_list"),
        banner_at=banner_at,
        banner=banner,
        page_shift=page_shift,
        offsets=offsets,
        places=places,
        pages=pages,
        no_pages=no_pages,
        srcu=srcu,
        no_srcu=no_srcu,
    )


def dump(kernel: KernelMap) -> str:
    """A map as JSON; ``load`` is the inverse."""
    return json.dumps(asdict(kernel) | {"banner": kernel.banner.decode("latin-1")})


def load(text: str) -> KernelMap:
    """A map from its JSON; raises ValueError, KeyError or TypeError for anything else."""
    found: dict[str, Any] = json.loads(text)
    found["banner"] = found["banner"].encode("latin-1")
    found["places"] = {int(address): name for address, name in found["places"].items()}
    if found["pages"] is not None:
        found["pages"] = PageMap(**found["pages"])
    if found["srcu"] is not None:
        found["srcu"] = SrcuMap(**found["srcu"])
    return KernelMap(**found)


def returns(vmlinux: Vmlinux, name: str) -> tuple[int, ...]:
    """The addresses at which the function ``name`` returns, for ``--flush-symbol``.

    UsageError when there is no such function, or none of its instructions is a RET.
    """
    symbol = vmlinux.find(name)
    if symbol is None:
        raise UsageError(f"--flush-symbol {name}: vmlinux {vmlinux.path} has no such symbol")
    found = []
    for code in vmlinux.code():
        start = symbol.address - code.address
        if 0 <= start < len(code.data):
            body = code.data[start : start + symbol.size]
            found += [
                symbol.address + at
                for at in range(0, len(body) & ~3, 4)
                if int.from_bytes(body[at : at + 4], "little") in (_RET, _RETAA, _RETAB)
            ]
    if not found:
        raise UsageError(
            f"--flush-symbol {name}: it is no function with a return; one that ends in a "
            "call of another one has none: name that one"
        )
    return tuple(found)


def _bytes(vmlinux: Vmlinux, address: int, size: int) -> bytes:
    for section in vmlinux.elf.iter_sections():
        start = section["sh_addr"]
        if section["sh_type"] == "SHT_PROGBITS" and start <= address < start + section["sh_size"]:
            return bytes(section.data()[address - start : address - start + size])
    raise LayoutError(f"vmlinux {vmlinux.path}: nothing is at {address:#x}")
