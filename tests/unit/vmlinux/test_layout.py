# SPDX-License-Identifier: GPL-2.0-or-later
"""Structures out of DWARF, against what the compiler itself says; maps of kernels."""

import struct
from pathlib import Path

import pytest

from qemu_model.arch.registers import SysReg
from qemu_model.errors import InfrastructureError, Unsupported, UsageError
from qemu_model.machine.cache import Cache
from qemu_model.machine.kernelmap import kernel_map
from qemu_model.machine.progress import SilentProgress
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.kernelmap import dump, load, read_map, returns
from qemu_model.vmlinux.layout import LayoutError, Member, Structures
from tests.unit.vmlinux.kernel_like import (
    ENTER,
    OTHER_ERET,
    TEXT,
    VECTOR,
    WRITE,
    image_of,
    run,
    tool,
    word,
)

SOURCE = "virt/kvm/kvm_main.c"
C = """
#define offsetof(t, m) __builtin_offsetof(t, m)
typedef unsigned long long u64;
typedef unsigned int u32;
struct list_head { struct list_head *next, *prev; };
struct rb_node { unsigned long parent; struct rb_node *rb_right, *rb_left; };
struct rb_root { struct rb_node *rb_node; };
struct kvm_memory_slot {
	char odd;
	struct rb_node gfn_node[2];
	u64 base_gfn; unsigned long npages; unsigned long *dirty_bitmap;
	u32 flags; short id; int grid[3][5];
};
struct kvm_memslots { u64 generation; struct rb_root gfn_tree; int node_idx; };
typedef struct { volatile u64 pgd_phys; } mmu_t;
struct kvm {
	u64 head;
	union { struct { u32 a; const mmu_t mmu; } arch; u64 words[7]; };
	struct { short s; struct { struct list_head vm_list; }; };
	struct kvm_memslots *memslots[1];
	struct { char c; u64 late; } __attribute__((packed)) packed;
};
struct self { struct self *next; struct unknown *u; };
#define AT(t, m) offsetof(struct t, m)
const unsigned long offsets[] = {
	AT(kvm, arch.mmu.pgd_phys), AT(kvm, vm_list), AT(kvm, memslots), AT(kvm, packed.late),
	AT(kvm_memory_slot, gfn_node), AT(kvm_memory_slot, id), AT(kvm_memslots, node_idx),
	sizeof(struct kvm),
};
struct kvm the_kvm; struct self the_self; struct list_head vm_list = { &vm_list, &vm_list };
struct kvm_memory_slot the_slot; struct kvm_memslots the_slots; struct rb_node the_node;
char swapper_pg_dir[4096];
const char linux_banner[] = "Linux version 6.12.0 (a@b) #1\\n";
"""
HEAD = """
    .text
    .globl _text
_text:
    .long 0x91005a4d, 0
    .quad 0
    .quad 0x1000000
    .quad 2 | 8
    .quad 0, 0, 0
    .ascii "ARM\\x64"
    .long 0
"""
FLUSH = f"""
    .type drain, %function
drain:
    cbz x0, 1f
{word(WRITE, SysReg.HDBSSPROD_EL2, 31)}
    ret
1:  ret
    .size drain, . - drain
    .type leaves, %function
leaves:
    b drain
    .size leaves, . - leaves
"""


def kernel(directory: Path, *flags: str, c: str = C) -> Path:
    """A vmlinux of our own kvm_main.c, and of some assembler."""
    source = directory / SOURCE
    source.parent.mkdir(parents=True)
    source.write_text(c)
    assembler = directory / "head.s"
    assembler.write_text(HEAD + ENTER + OTHER_ERET + VECTOR + FLUSH)
    made, head, linked = directory / "kvm_main.o", directory / "head.o", directory / "vmlinux"
    run(tool("gcc"), "-O1", *(flags or ("-g",)), "-ffreestanding", "-c", "-o", made, source)
    run(tool("as"), "-march=armv8.5-a", "-o", head, assembler)
    run(tool("ld"), "-e", "0", f"-Ttext={TEXT:#x}", "-o", linked, head, made)
    return linked


@pytest.mark.parametrize("flags", [("-gdwarf-4",), ("-gdwarf-5",), ("-g", "-gz")], ids=str)
def test_offsets_are_those_of_the_compiler(tmp_path: Path, flags: tuple[str, ...]) -> None:
    elf = Vmlinux(kernel(tmp_path, *flags))
    structures = Structures(elf, SOURCE)
    start = elf.address("offsets") - elf.section_address(".rodata")
    expected = struct.unpack_from("<8Q", elf.data(".rodata"), start)
    found = [
        structures.offset(path)
        for path in ("kvm.arch.mmu.pgd_phys", "kvm.vm_list", "kvm.memslots", "kvm.packed.late",
                     "kvm_memory_slot.gfn_node", "kvm_memory_slot.id", "kvm_memslots.node_idx")
    ]  # fmt: skip
    assert (*found, structures.size("kvm")) == expected


def test_sizes_and_strides(tmp_path: Path) -> None:
    structures = Structures(Vmlinux(kernel(tmp_path)), SOURCE)
    assert structures.member("kvm_memory_slot.gfn_node") == Member(8, 48, 24)
    grid = structures.member("kvm_memory_slot.grid")
    assert (grid.size, grid.stride) == (60, 20)
    assert structures.member("kvm.memslots").size == 8
    assert structures.member("kvm.arch.mmu.pgd_phys").size == 8
    assert structures.member("self.next") == Member(0, 8)


@pytest.mark.parametrize(
    ("path", "says"),
    [("nothing.x", "knows no struct nothing"), ("kvm.nothing", "no member nothing"),
     ("kvm.head.x", "no member x"), ("kvm.memslots.x", "no member x"),
     ("unknown.x", "knows no struct unknown")],
)  # fmt: skip
def test_what_is_missing_is_said(tmp_path: Path, path: str, says: str) -> None:
    with pytest.raises(LayoutError, match=says):
        Structures(Vmlinux(kernel(tmp_path)), SOURCE).member(path)


def test_another_source_file_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"has no mm/slub\.c"):
        Structures(Vmlinux(kernel(tmp_path)), "mm/slub.c")


def test_without_debug_information(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="CONFIG_DEBUG_INFO"):
        Structures(Vmlinux(kernel(tmp_path, "-g0")), SOURCE)


def test_a_map_has_what_memory_is_read_with(tmp_path: Path) -> None:
    elf = Vmlinux(kernel(tmp_path))
    found = read_map(elf)
    assert (found.text, found.load_offset, found.page_shift) == (TEXT, 2 << 20, 12)
    assert found.banner == b"Linux version 6.12.0 (a@b) #1\n"
    assert found.vm_list == elf.address("vm_list")
    assert found.offsets["kvm_memory_slot.gfn_node[]"] == 24
    assert list(found.places.values()) == ["drain+0x4"]
    assert found.place(elf.address("drain") + 4) == "drain+0x4"
    assert found.place(0x10) == "0x10"
    assert load(dump(found)) == found


def test_a_map_is_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = kernel(tmp_path), Cache(tmp_path / "cache")
    image = image_of(path)
    first = kernel_map(path, image, cache, SilentProgress())
    monkeypatch.setattr("qemu_model.machine.kernelmap.read_map", None)
    assert kernel_map(path, image, cache, SilentProgress()) == first


def test_an_image_of_another_build_is_refused(tmp_path: Path) -> None:
    path = kernel(tmp_path)
    image = image_of(path)
    data = bytearray(image.read_bytes())
    data[-1] ^= 1
    image.write_bytes(data)
    with pytest.raises(InfrastructureError, match="does not match the kernel"):
        kernel_map(path, image, Cache(tmp_path / "cache"), SilentProgress())


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("kvm_memslots", "kvm_other", "knows no struct kvm_memslots"),
     ("npages;", "pages;", "no member npages"),
     ("u64 base_gfn;", "u32 base_gfn;", "4 bytes, not 8"),
     ("Linux version", "Other version", "no banner"),
     ("swapper_pg_dir", "pg_dir", "no symbol swapper_pg_dir")],
)  # fmt: skip
def test_a_kernel_that_is_too_different_is_refused(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = kernel(tmp_path, c=C.replace(old, new))
    with pytest.raises(Unsupported, match=says):
        kernel_map(path, tmp_path / "Image", Cache(tmp_path / "cache"), SilentProgress())


def test_a_cut_vmlinux_is_refused(tmp_path: Path) -> None:
    path = kernel(tmp_path)
    whole = path.read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 50)):
        path.write_bytes(whole[:size])
        with pytest.raises(Unsupported):
            kernel_map(path, tmp_path / "Image", Cache(tmp_path / "cache"), SilentProgress())


def test_the_returns_of_a_function(tmp_path: Path) -> None:
    elf = Vmlinux(kernel(tmp_path))
    at = elf.address("drain")
    assert returns(elf, "drain") == (at + 8, at + 12)
    with pytest.raises(UsageError, match="no such symbol"):
        returns(elf, "nothing")
    for name in ("leaves", "linux_banner"):
        with pytest.raises(UsageError, match="no function with a return"):
            returns(elf, name)
