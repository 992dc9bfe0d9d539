# SPDX-License-Identifier: GPL-2.0-or-later
"""Where struct page are, from the vmlinux of a small kernel."""

import struct
from pathlib import Path

import pytest

from qemu_model.errors import Unsupported
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.pagemap import read_page_map
from tests.unit.vmlinux.kernel_like import TEXT, run, tool

SOURCE, ALLOCATOR = "virt/kvm/kvm_main.c", "mm/page_alloc.c"
C = """
#include <stddef.h>
typedef unsigned long u64; typedef unsigned int u32;
typedef struct { int counter; } atomic_t;
struct page {
	u64 flags;
	union {
		struct { void *lru[2]; void *mapping; u64 index; u64 private; };
		struct { u64 pad; u64 compound_head; };
	};
	union { u32 page_type; atomic_t _mapcount; };
	atomic_t _refcount;
	u64 memcg;
};
struct mem_section { u64 usage; u64 section_mem_map; u64 ext; };
struct mem_section **mem_section;
struct page the_page; struct mem_section the_section;
void _text(void) { }
char empty_zero_page[4096];
#define AT(m) offsetof(struct page, m)
const u64 expected[] = {
	sizeof(struct mem_section), offsetof(struct mem_section, section_mem_map),
	sizeof(struct page), AT(_refcount), AT(page_type), AT(mapping), AT(compound_head),
	AT(private),
};
"""

FREE = """
enum pagetype { PGTY_offline = 0xe1, PGTY_buddy = 0xe0 };
struct free_area { void *lists[6]; unsigned long nr_free; };
struct zone { unsigned long first; struct free_area free_area[9]; };
struct zone the_zone; enum pagetype the_type;
"""


def kernel(directory: Path, c: str = C, free: str = FREE, allocator: str = ALLOCATOR) -> Vmlinux:
    objects = []
    for name, text in ((SOURCE, c), (allocator, free)):
        source = directory / name
        source.parent.mkdir(parents=True)
        source.write_text(text)
        objects.append(source.with_suffix(".o"))
        run(tool("gcc"), "-O1", "-g", "-ffreestanding", "-c", "-o", objects[-1], source)
    linked = directory / "vmlinux"
    run(tool("ld"), "-e", "0", f"-Ttext={TEXT:#x}", "-o", linked, *objects)
    return Vmlinux(linked)


def test_a_map_has_what_the_compiler_made(tmp_path: Path) -> None:
    elf = kernel(tmp_path)
    found = read_page_map(elf)
    start = elf.address("expected") - elf.section_address(".rodata")
    assert struct.unpack_from("<8Q", elf.data(".rodata"), start) == (
        found.section_size, found.section_map, found.size, found.refcount, found.page_type,
        found.mapping, found.compound_head, found.private,
    )  # fmt: skip
    assert (found.indirect, found.orders, found.buddy) == (True, 9, 0xE0)
    assert found.mem_section == elf.address("mem_section")
    assert found.zero_page == elf.address("empty_zero_page")


def test_an_array_of_sections_is_one(tmp_path: Path) -> None:
    c = C.replace("mem_section **mem_section", "mem_section mem_section[4][1]")
    assert not read_page_map(kernel(tmp_path, c)).indirect


def test_another_file_may_know_the_free_blocks(tmp_path: Path) -> None:
    assert read_page_map(kernel(tmp_path, allocator="arch/arm64/mm/mmu.c")).buddy == 0xE0


@pytest.mark.parametrize(
    ("old", "new"), [("PGTY_buddy", "PG_buddy"), ("free_area[9]", "free_area"), ("zone", "area")]
)
def test_a_kernel_of_another_form_does_not_tell_free_blocks(
    tmp_path: Path, old: str, new: str
) -> None:
    found = read_page_map(kernel(tmp_path, free=FREE.replace(old, new)))
    assert (found.buddy, found.size) == (None, 64)


def test_a_kernel_without_these_files_does_not_tell_free_blocks(tmp_path: Path) -> None:
    assert read_page_map(kernel(tmp_path, allocator="mm/slub.c")).buddy is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("struct page", "struct leaf", "knows no struct page"),
     ("mapping", "space", "no member mapping"),
     ("u32 page_type", "u64 page_type", "page_type has 8 bytes"),
     ("**mem_section", "**sections", "not SPARSEMEM"),
     ("empty_zero_page", "zeros", "no symbol empty_zero_page")],
)  # fmt: skip
def test_what_is_missing_is_said(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(Exception, match=says):
        read_page_map(kernel(tmp_path, C.replace(old, new)))


def test_a_kernel_without_the_file_is_refused(tmp_path: Path) -> None:
    elf = kernel(tmp_path)
    (tmp_path / "other").mkdir()
    source = tmp_path / "other" / "x.c"
    source.write_text("char _text[4];")
    run(tool("gcc"), "-g", "-c", "-o", tmp_path / "x.o", source)
    run(tool("ld"), "-e", "0", "-o", elf.path, tmp_path / "x.o")
    with pytest.raises(Unsupported, match=r"has no virt/kvm/kvm_main\.c"):
        read_page_map(Vmlinux(elf.path))
