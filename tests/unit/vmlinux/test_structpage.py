# SPDX-License-Identifier: GPL-2.0-or-later
"""struct page in a kernel's memory: what is found of buffers, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.buffers import PageRun
from qemu_model.vmlinux.memory import RAM_BASE, KernelMemory, Ram, Unreadable
from qemu_model.vmlinux.structpage import FRAMES_MAX, StructPages
from tests.unit.vmlinux.memory_like import (
    BUDDY,
    LOAD,
    MEM_SECTION,
    PAGES,
    SIZE,
    TEXT,
    UNTYPED,
    VMEMMAP,
    ZERO_PAGE,
    FakeKernel,
)

FIRST = (RAM_BASE >> 12) + 0x800


def pages_of(fake: FakeKernel) -> StructPages:
    assert fake.kernel.pages is not None
    return StructPages(KernelMemory(Ram(fake.path), fake.kernel), fake.kernel.pages, fake.shift)


@pytest.fixture
def fake(tmp_path: Path) -> FakeKernel:
    made = FakeKernel(tmp_path / "ram")
    made.add_struct_pages()
    return made


@pytest.mark.parametrize("indirect", [True, False])
def test_struct_pages_are_found(tmp_path: Path, indirect: bool) -> None:
    fake = FakeKernel(tmp_path / "ram")
    fake.add_struct_pages(replace(PAGES, indirect=indirect))
    pages = pages_of(fake)
    assert pages.zero_frame == ZERO_PAGE - TEXT + RAM_BASE + LOAD >> 12
    look = pages.look(FIRST, 1)
    assert (look.runs, look.owner, look.free) == ((PageRun(1, 1, UNTYPED, False, -1),), 1, ())


def test_neighbours_that_are_the_same_are_one_run(fake: FakeKernel) -> None:
    for frame in range(FIRST + 1, FIRST + 8):
        fake.set_page(frame, refcount=0)
    fake.set_page(FIRST + 4, refcount=3, mapping=0xFFFF_0000_1234_5678, page_type=0xF5000000)
    look = pages_of(fake).look(FIRST, 8)
    tail = PageRun(3, 0, UNTYPED, False, -1)
    assert look.runs == (
        PageRun(1, 1, UNTYPED, False, -1), tail, PageRun(1, 3, 0xF5000000, True, -1), tail,
    )  # fmt: skip
    assert (look.owner, look.free) == (1, ())


def test_a_page_that_nobody_holds(fake: FakeKernel) -> None:
    fake.set_page(FIRST, refcount=0)
    look = pages_of(fake).look(FIRST, 2)
    assert (look.owner, look.free) == (0, ())


def test_the_head_of_a_compound_page_holds_its_tails(fake: FakeKernel) -> None:
    for frame in range(FIRST + 1, FIRST + 4):
        fake.set_page(frame, refcount=0, compound_head=VMEMMAP + 64 * FIRST + 1)
    look = pages_of(fake).look(FIRST + 2, 2)
    assert look.runs == (PageRun(2, 0, UNTYPED, False, FIRST),)
    assert look.owner == 1
    fake.set_page(FIRST, refcount=0)
    assert pages_of(fake).look(FIRST + 2, 2).owner == 0


@pytest.mark.parametrize(
    ("first", "count", "free"),
    [
        (FIRST, 4, ()),
        (FIRST, 16, ((FIRST + 8, FIRST + 11),)),
        (FIRST + 8, 1, ((FIRST + 8, FIRST + 8),)),
        (FIRST + 10, 1, ((FIRST + 10, FIRST + 10),)),
        (FIRST + 10, 8, ((FIRST + 10, FIRST + 11), (FIRST + 16, FIRST + 17))),
        (FIRST + 12, 4, ()),
        (FIRST + 0x40 + 0x3F, 2, ((FIRST + 0x7F, FIRST + 0x7F),)),
    ],
)
def test_free_blocks(
    fake: FakeKernel, first: int, count: int, free: tuple[tuple[int, int], ...]
) -> None:
    for at, order in ((FIRST + 8, 2), (FIRST + 16, 3), (FIRST + 0x40, 6)):
        fake.set_page(at, refcount=0, page_type=BUDDY, private=order)
        for frame in range(at + 1, at + (1 << order)):
            fake.set_page(frame, refcount=0)
    assert pages_of(fake).look(first, count).free == free


def test_a_block_of_no_size_is_none(fake: FakeKernel) -> None:
    fake.set_page(FIRST, page_type=BUDDY, private=11)
    fake.set_page(FIRST + 1, page_type=BUDDY, private=1 << 60)
    assert pages_of(fake).look(FIRST, 2).free == ()


def test_the_first_frame_of_memory_has_none_before_it(fake: FakeKernel) -> None:
    assert pages_of(fake).look((RAM_BASE >> 12) + 1, 1).free == ()


def test_without_the_value_of_buddy_nothing_is_said_of_free_blocks(tmp_path: Path) -> None:
    fake = FakeKernel(tmp_path / "ram")
    fake.add_struct_pages(replace(PAGES, buddy=None))
    fake.set_page(FIRST, refcount=0, page_type=BUDDY)
    look = pages_of(fake).look(FIRST, 1)
    assert (look.free, look.owner) == (None, 0)


@pytest.mark.parametrize("frame", [0, (RAM_BASE >> 12) - 1, (RAM_BASE + SIZE) >> 12, 1 << 52])
def test_a_frame_without_struct_page_is_refused(fake: FakeKernel, frame: int) -> None:
    with pytest.raises(Unreadable):
        pages_of(fake).look(frame, 1)


@pytest.mark.parametrize("count", [0, -1, FRAMES_MAX + 1])
def test_no_frames_or_too_many_are_refused(fake: FakeKernel, count: int) -> None:
    with pytest.raises(Unreadable, match="are not looked at"):
        pages_of(fake).look(FIRST, count)


@pytest.mark.parametrize("link", [1, VMEMMAP + 64 * FIRST + 3, (1 << 64) - 1])
def test_a_head_that_is_no_struct_page_is_refused(fake: FakeKernel, link: int) -> None:
    fake.set_page(FIRST, compound_head=link)
    with pytest.raises(Unreadable):
        pages_of(fake).look(FIRST, 1)


def test_a_kernel_without_sections_is_refused(fake: FakeKernel) -> None:
    fake.put(MEM_SECTION, 0)
    with pytest.raises(Unreadable, match="no section"):
        pages_of(fake)


def test_sections_with_arrays_of_their_own_are_refused(fake: FakeKernel) -> None:
    sections = fake.alloc(1 << 12)
    roots = fake.alloc(1 << 12)
    fake.put(MEM_SECTION, roots)
    fake.put(roots, sections)
    with pytest.raises(Unreadable, match="0 arrays"):
        pages_of(fake)
    fake.put(sections + 8, VMEMMAP | 0x1F)
    fake.put(sections + 40, VMEMMAP + (1 << 20) | 0x1F)
    with pytest.raises(Unreadable, match="2 arrays"):
        pages_of(fake)


def test_what_says_that_the_zero_page_is_free_is_not_believed(fake: FakeKernel) -> None:
    fake.set_page(ZERO_PAGE - TEXT + RAM_BASE + LOAD >> 12, refcount=0)
    with pytest.raises(Unreadable, match="zero page is free"):
        pages_of(fake)
