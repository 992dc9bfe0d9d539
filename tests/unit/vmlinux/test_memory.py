# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel memory through page tables, and KVM's structures in it; hostile ones too."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from qemu_model.vmlinux import kvm
from qemu_model.vmlinux.kvm import Kvm, Look, MemSlot
from qemu_model.vmlinux.memory import RAM_BASE, READ_MAX, KernelMemory, Ram, Unreadable
from tests.unit.vmlinux.memory_like import (
    BANNER,
    LOAD,
    OFFSETS,
    PGD,
    SIZE,
    VTTBR,
    FakeKernel,
    Slot,
)

SLOTS = [Slot(3, 0x100, 64, logged=False), Slot(0, 0x1000, 2048), Slot(9, 0x40000, 100_000)]


def memory_of(fake: FakeKernel) -> KernelMemory:
    return KernelMemory(Ram(fake.path), fake.kernel)


def kvm_of(fake: FakeKernel) -> Kvm:
    return Kvm(memory_of(fake), fake.kernel)


def entry(frame: int, level: int = 3, shift: int = 12) -> int:
    return frame << shift | (level & 7) << 1 | 1


def look(fake: FakeKernel, entries: Sequence[int]) -> Look:
    return kvm_of(fake).look(VTTBR, entries)[1]


@pytest.fixture
def fake(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path / "ram")


@pytest.fixture
def guest(fake: FakeKernel) -> FakeKernel:
    fake.add_vm([Slot(1, 0, 16)], pgd=0x9999_0000)
    fake.add_vm(SLOTS)
    return fake


@pytest.mark.parametrize(
    ("shift", "bits"),
    [(12, 48), (12, 39), (12, 52), (14, 47), (14, 48), (14, 36), (14, 52), (16, 42), (16, 48),
     (16, 52)],
)  # fmt: skip
def test_every_form_of_tables_is_walked(tmp_path: Path, shift: int, bits: int) -> None:
    fake = FakeKernel(tmp_path / "ram", shift, bits)
    at = fake.alloc(3 << shift)
    for page in range(3):
        fake.put(at + (page << shift), bytes([page]) * (1 << shift))
    memory = memory_of(fake)
    assert memory.read(fake.kernel.banner_at, len(BANNER)) == BANNER
    middle = memory.read(at + (1 << shift) - 2, (1 << shift) + 4)
    assert middle == b"\0\0" + b"\1" * (1 << shift) + b"\2\2"
    assert memory.number(at + (2 << shift), 2) == 0x202


def test_a_tag_in_a_pointer_does_not_matter(fake: FakeKernel) -> None:
    at = fake.alloc(8)
    fake.put(at, 4711)
    assert memory_of(fake).number(at & ~(0xFF << 56) | 0xF3 << 56) == 4711


def test_a_block_is_walked(fake: FakeKernel) -> None:
    at = 0xFFFF_9000_0000_0000
    fake.map(at, RAM_BASE, level=2)
    fake.physical(RAM_BASE + 0x12_3456, b"abc")
    assert memory_of(fake).read(at + 0x12_3456, 3) == b"abc"


def test_another_kernel_is_not_read(fake: FakeKernel) -> None:
    fake.put(fake.kernel.banner_at, b"Linux version 6.13")
    with pytest.raises(Unreadable, match="not that of vmlinux"):
        memory_of(fake)


def test_tables_of_another_form_are_not_read(fake: FakeKernel) -> None:
    table = fake.kernel.swapper - fake.text + LOAD
    fake.ram[table : table + 4096] = bytes(4096)
    with pytest.raises(Unreadable, match="do not lead to its own variables"):
        memory_of(fake)


@pytest.mark.parametrize("size", [-1, READ_MAX + 1])
def test_a_read_of_any_size_is_refused_or_done(fake: FakeKernel, size: int) -> None:
    memory = memory_of(fake)
    with pytest.raises(Unreadable):
        memory.read(fake.kernel.banner_at, size)


@pytest.mark.parametrize("address", [0, 8, -1, 1 << 63, (1 << 64) - 1, 1 << 64, 1 << 70,
                                     0x0000_7FFF_FFFF_FFFF])  # fmt: skip
def test_an_address_of_nothing_is_refused(fake: FakeKernel, address: int) -> None:
    with pytest.raises(Unreadable):
        memory_of(fake).number(address)


@pytest.mark.parametrize(
    "pa",
    [0, RAM_BASE - 0x1000, RAM_BASE + SIZE, 0xFFFF_FFFF_F000],
)
def test_what_is_mapped_outside_ram_is_refused(fake: FakeKernel, pa: int) -> None:
    fake.map(0xFFFF_9000_0000_0000, pa)
    with pytest.raises(Unreadable, match="not in RAM"):
        memory_of(fake).number(0xFFFF_9000_0000_0FF8)


def test_tables_that_lead_to_themselves_end(fake: FakeKernel) -> None:
    table = fake.kernel.swapper - fake.text + LOAD
    fake.physical(RAM_BASE + table + 8 * 300, (RAM_BASE + table | 3).to_bytes(8, "little"))
    address = 0xFFFF << 48 | 300 << 39 | 300 << 30 | 300 << 21 | 300 << 12
    assert memory_of(fake).number(address + 8 * 300) == RAM_BASE + table | 3


@pytest.mark.parametrize("index", [0, 1])
def test_the_vm_of_a_table_and_its_slots_are_found(fake: FakeKernel, index: int) -> None:
    other = fake.add_vm([Slot(1, 0, 16)], pgd=0x9999_0000)
    vm = fake.add_vm(SLOTS, index=index)
    kernel = kvm_of(fake)
    assert kernel.find_vm(VTTBR) == vm
    assert kernel.find_vm(0x9999_0000) == other
    assert kernel.slots(vm) == (
        MemSlot(3, 0x100, 64, 0),
        MemSlot(0, 0x1000, 2048, fake.bitmaps[0]),
        MemSlot(9, 0x40000, 100_000, fake.bitmaps[9]),
    )


def test_no_vm_has_that_table(guest: FakeKernel) -> None:
    with pytest.raises(Unreadable, match="no VM"):
        kvm_of(guest).find_vm(PGD + 0x1000)


def test_a_list_of_vms_without_end_is_left(guest: FakeKernel) -> None:
    link = guest.vm + OFFSETS["kvm.vm_list"]
    guest.put(link, link)
    with pytest.raises(Unreadable, match="more than"):
        kvm_of(guest).find_vm(1 << 40)


def test_a_tree_without_end_is_left(guest: FakeKernel) -> None:
    root = guest.slots_at + OFFSETS["kvm_memslots.gfn_tree.rb_node"]
    start = time.monotonic()
    at = guest.alloc(0x100)
    guest.put(at + OFFSETS["rb_node.rb_left"], at)
    guest.put(at + OFFSETS["rb_node.rb_right"], at)
    guest.put(root, at)
    with pytest.raises(Unreadable, match="memory slots"):
        kvm_of(guest).slots(guest.vm)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("offset", "value"),
    [("kvm_memslots.gfn_tree.rb_node", 0x1234), ("kvm_memslots.gfn_tree.rb_node", (1 << 64) - 1),
     ("kvm_memslots.node_idx", 2), ("kvm_memslots.node_idx", 0xFFFF_FFFF)],
)  # fmt: skip
def test_slots_that_are_none_are_refused(guest: FakeKernel, offset: str, value: int) -> None:
    guest.put(guest.slots_at + OFFSETS[offset], value)
    with pytest.raises(Unreadable):
        kvm_of(guest).look(VTTBR, [entry(0x1000)])


@pytest.mark.parametrize("pages", [(1 << 64) - 1, 1 << 41])
def test_a_slot_of_any_size_is_refused(fake: FakeKernel, pages: int) -> None:
    fake.add_vm([Slot(0, 0x1000, 64)])
    node = int.from_bytes(memory_of(fake).read(fake.slots_at + 0x20, 8), "little")
    fake.put(node - 0x10 + OFFSETS["kvm_memory_slot.npages"], pages)
    with pytest.raises(Unreadable, match="should be a memory slot"):
        look(fake, [entry(0x1000)])


def test_bits_of_pages(guest: FakeKernel) -> None:
    guest.set_bits(0, 0, 7, 8, 2047)
    guest.set_bits(9, 99_999, 32_768)
    pages = [0x1000, 0x1001, 0x1007, 0x1008, 0x17FF, 0x40000 + 99_999, 0x48000, 0x48001]
    found = look(guest, [entry(page) for page in pages] + [entry(0x110), entry(0x5)])
    assert found.dirty == [0x1000, 0x1007, 0x1008, 0x17FF, 0x48000, 0x40000 + 99_999]
    assert found.clean == [0x1001, 0x48001]
    assert (found.unlogged, found.invalid) == (2, 0)


def test_a_block_stands_for_all_of_its_pages(guest: FakeKernel) -> None:
    guest.set_bits(0, *range(512), *range(1024, 1100))
    found = look(guest, [entry(0x1000, 2), entry(0x1400, 2)])
    assert found.dirty == [*range(0x1000, 0x1200), *range(0x1400, 0x144C)]
    assert found.clean == list(range(0x144C, 0x1600))
    assert look(guest, [entry(0xE00, 2)]).unlogged == 512
    assert look(guest, [entry(0x800, 2), entry(0x1700, 3)]).unlogged == 512


def test_what_names_no_page_is_counted(guest: FakeKernel) -> None:
    found = look(guest, [0, 0x1000 << 12 | 6, entry(0x1000, -1), entry(0x1000, -4)])
    assert (found.dirty, found.clean, found.invalid) == ([], [], 4)


def test_entries_for_too_much_are_refused(fake: FakeKernel) -> None:
    fake.add_vm([Slot(0, 0, 64)])
    node = int.from_bytes(memory_of(fake).read(fake.slots_at + 0x20, 8), "little")
    fake.put(node - 0x10 + OFFSETS["kvm_memory_slot.npages"], 1 << 39)
    with pytest.raises(Unreadable, match="more than"):
        look(fake, [entry(0, 0)])
    with pytest.raises(Unreadable):
        look(fake, [entry(1 << 38)])


def test_slots_that_never_stand_still(guest: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = iter(range(1000))
    monkeypatch.setattr(Kvm, "_active", lambda self, vm: (guest.slots_at, next(turns)))
    with pytest.raises(Unreadable, match="changed while"):
        kvm_of(guest).look(VTTBR, [entry(0x1000)])


def test_slots_that_stand_still_later(guest: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = iter([1, 2, 3, 4, *[5] * 100])
    monkeypatch.setattr(Kvm, "_active", lambda self, vm: (guest.slots_at, next(turns)))
    assert kvm_of(guest).look(VTTBR, [entry(0x1000)])[1].clean == [0x1000]


def test_the_largest_buffer_takes_less_than_a_second(fake: FakeKernel) -> None:
    fake.add_vm([Slot(0, 0x40000, 1 << 20)])
    entries = [entry(0x40000 + page * 7919 % (1 << 20)) for page in range(1 << 18)]
    reader = kvm_of(fake)
    start = time.process_time()
    _, found = reader.look(VTTBR, entries)
    assert time.process_time() - start < 1.0
    assert len(found.clean) == 1 << 18
    assert kvm.PAGES_MAX >= 1 << 18


def test_a_ram_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        Ram(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(Unreadable):
        Ram(tmp_path / "empty")
