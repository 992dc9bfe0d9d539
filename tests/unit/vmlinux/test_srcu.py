# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of kvm->srcu: where a vmlinux says that they are counted, and the counting."""

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.kvm import Kvm
from qemu_model.vmlinux.layout import LayoutError, Structures
from qemu_model.vmlinux.memory import KernelMemory, Ram, Unreadable
from qemu_model.vmlinux.srcu import (
    Readers,
    SrcuMap,
    count_readers,
    read_readers,
    read_srcu_map,
)
from tests.unit.vmlinux.kernel_like import TEXT, run, tool
from tests.unit.vmlinux.memory_like import PER_CPU, SRCU, VTTBR, FakeKernel, Slot

SOURCE = "virt/kvm/kvm_main.c"
APART = "struct srcu_data { int odd; word srcu_lock_count[2]; word srcu_unlock_count[2]; };"
TOGETHER = """
struct srcu_ctr { word srcu_locks; word srcu_unlocks; };
struct srcu_data { int odd; struct srcu_ctr srcu_ctrs[2]; };
"""
C = """
typedef struct { long counter; } word;
%s
struct kvm {
	long head;
	struct { word owner; int rest; } slots_lock;
	struct { int idx; struct srcu_data *sda; } srcu;
};
struct kvm the_kvm; struct srcu_data the_data;
unsigned long __per_cpu_offset[16] = { 1 };
void _text(void) { }
"""


def srcu_map(directory: Path, counters: str, *changes: tuple[str, str]) -> SrcuMap:
    source, made, linked = directory / SOURCE, directory / "kvm_main.o", directory / "vmlinux"
    source.parent.mkdir(parents=True)
    text = C % counters
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    source.write_text(text)
    run(tool("gcc"), "-O1", "-g", "-ffreestanding", "-c", "-o", made, source)
    run(tool("ld"), "-e", "0", f"-Ttext={TEXT:#x}", "-o", linked, made)
    elf = Vmlinux(linked)
    found = read_srcu_map(elf, Structures(elf, SOURCE))
    assert found.per_cpu == elf.address("__per_cpu_offset")
    return replace(found, per_cpu=0)


def test_counters_of_one_kind_in_an_array(tmp_path: Path) -> None:
    expected = SrcuMap(per_cpu=0, cpus=16, data=32, locks=8, unlocks=24, stride=8, owner=8)
    assert srcu_map(tmp_path, APART) == expected


def test_counters_side_by_side(tmp_path: Path) -> None:
    expected = SrcuMap(per_cpu=0, cpus=16, data=32, locks=8, unlocks=16, stride=16, owner=8)
    assert srcu_map(tmp_path, TOGETHER) == expected


@pytest.mark.parametrize(
    ("counters", "change", "says"),
    [(APART, ("__per_cpu_offset", "offsets"), "no __per_cpu_offset"),
     (APART, ("[16] = { 1 }", "[5000] = { 1 }"), "no __per_cpu_offset"),
     (APART, ("sda;", "data;"), "no member sda"),
     (APART, ("word owner", "word rt"), "no member owner"),
     (APART, ("srcu_lock_count", "locks"), "no member srcu_ctrs"),
     (APART, ("srcu_unlock_count", "unlocks"), "no member srcu_ctrs"),
     (APART, ("word srcu_lock_count[2]", "word srcu_lock_count[3]"), "another form"),
     (APART, ("word srcu_lock_count[2]", "int srcu_lock_count[2]"), "another form"),
     (APART, ("word owner", "int owner"), "another form"),
     (TOGETHER, ("word srcu_locks; word", "int srcu_locks; int"), "another form")],
)  # fmt: skip
def test_a_kernel_of_another_form_is_said(
    tmp_path: Path, counters: str, change: tuple[str, str], says: str
) -> None:
    with pytest.raises(LayoutError, match=says):
        srcu_map(tmp_path, counters, change)


@pytest.fixture
def fake(tmp_path: Path) -> FakeKernel:
    made = FakeKernel(tmp_path / "ram")
    made.add_vm([Slot(0, 0x1000, 64)])
    made.add_readers()
    return made


def readers(fake: FakeKernel) -> Readers:
    memory = KernelMemory(Ram(fake.path), fake.kernel)
    return read_readers(memory, SRCU, fake.vm)


def test_readers_are_counted_on_all_cpus(fake: FakeKernel) -> None:
    assert readers(fake) == Readers(0, 0, False)
    fake.count(0, 0, taken=5, left=4)
    fake.count(0, 1, taken=7, left=7)
    fake.count(2, 1, taken=9, left=10)  # entered on one CPU, left on the other
    assert readers(fake) == Readers(21, 0, False)
    fake.count(2, 0, taken=2, left=0)
    assert readers(fake) == Readers(23, 2, False)


@pytest.mark.parametrize("flags", [0, 1, 7])
def test_slots_lock_is_held_by_a_task_and_not_by_who_waits(fake: FakeKernel, flags: int) -> None:
    fake.put(fake.vm + SRCU.owner, 0xFFFF_0000_1234_5678 | flags)
    assert readers(fake) == Readers(0, 0, True)
    fake.put(fake.vm + SRCU.owner, flags)
    assert readers(fake) == Readers(0, 0, False)


def test_any_numbers_can_be_counted(fake: FakeKernel) -> None:
    for cpu in (0, 2):
        for half in (0, 1):
            fake.count(cpu, half, taken=(1 << 64) - 1, left=1)
    assert readers(fake) == Readers((1 << 64) - 4, (1 << 64) - 8, False)


def test_a_wild_table_of_cpus_is_not_followed(fake: FakeKernel) -> None:
    fake.put(PER_CPU + 8, 0x1234_5678)
    with pytest.raises(Unreadable):
        readers(fake)
    look = Kvm(KernelMemory(Ram(fake.path), fake.kernel), fake.kernel).look(VTTBR, [0x100_0007])
    assert look[1].readers is None and look[1].clean == [0x1000]


def test_a_look_counts_them(fake: FakeKernel) -> None:
    fake.count(2, 0, taken=3, left=2)
    kernel = fake.kernel
    memory = KernelMemory(Ram(fake.path), kernel)
    assert Kvm(memory, kernel).look(VTTBR, [])[1].readers == (Readers(3, 1, False),) * 2
    without = replace(kernel, srcu=None)
    assert Kvm(memory, without).look(VTTBR, [])[1].readers is None


def test_sections_between_two_moments() -> None:
    idle = Readers(7, 0, False)
    assert count_readers(idle, idle) == 0
    assert count_readers(Readers(7, 1, False), idle) == 1
    assert count_readers(Readers((1 << 64) - 1, 0, False), Readers(1, 1, False)) == 2
    assert count_readers(Readers(7, 0, True), idle) == 1
    assert count_readers(idle, Readers(7, 0, True)) == 1
