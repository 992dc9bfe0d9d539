# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages the watcher takes for marked while nobody kept their memory slots."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qemu_model.flushes import Flush
from qemu_model.pages import Ranges
from qemu_model.vmlinux.kvm import Kvm, Look
from tests.unit.machine.test_flushwatch import BUFFER, FRAME, Bench, entry, stop
from tests.unit.vmlinux.memory_like import SRCU, VTTBR, Slot

TASK = 0xFFFF_0000_1234_5000
ONE: Ranges = ((FRAME + 1, FRAME + 1),)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path, readers=True)
    made.fill(entry(1), entry(2))
    return made


def mrs(bench: Bench, index: int = 2, **changes: Any) -> None:
    bench.watcher.drain_begins(stop(index, 10, **changes))


def msr(bench: Bench, index: int = 2, **changes: Any) -> None:
    bench.watcher.flush(stop(index, 12, **changes))


def section(bench: Bench) -> None:
    """Somebody enters a read-side critical section, and leaves it."""
    bench.fake.count(0, 0, 1, 1)


def lock(bench: Bench, owner: int = TASK) -> None:
    bench.fake.put(bench.fake.vm + SRCU.owner, owner)


def last(bench: Bench) -> tuple[Ranges, int]:
    flush: Flush = bench.log().flushes[-1]
    return flush.unprotected, flush.unjudged


def test_a_page_that_is_marked_while_nobody_is_there(bench: Bench) -> None:
    mrs(bench)
    bench.fake.set_bits(0, 1)
    msr(bench)
    assert last(bench) == (ONE, 0)


@pytest.mark.parametrize("who", ["before", "after", "owner before", "owner after"])
def test_somebody_may_be_there_at_any_time_of_it(bench: Bench, who: str) -> None:
    if who == "before":
        bench.fake.count(2, 1, 1, 0)
    elif who == "owner before":
        lock(bench)
    mrs(bench)
    lock(bench, 0)
    bench.fake.set_bits(0, 1)
    if who == "after":
        section(bench)
    elif who == "owner after":
        lock(bench)
    msr(bench)
    assert last(bench) == ((), 0)


def test_who_was_there_for_one_flush_is_not_there_for_the_next(bench: Bench) -> None:
    mrs(bench)
    section(bench)
    msr(bench)
    mrs(bench)
    bench.fake.set_bits(0, 1)
    msr(bench)
    assert last(bench) == (ONE, 0)


def test_a_second_mrs_hides_nothing(bench: Bench) -> None:
    """As in sysreg_clear_set_s(), which reads what it is to change."""
    mrs(bench)
    bench.fake.set_bits(0, 1)
    mrs(bench)
    section(bench)
    mrs(bench)
    msr(bench)
    unprotected, unjudged = last(bench)
    assert (unprotected, unjudged) == (ONE, 1)  # its bit was 1 when the last look began


def test_a_section_between_two_mrs_protects_what_is_marked_between_them(bench: Bench) -> None:
    mrs(bench)
    section(bench)
    bench.fake.set_bits(0, 1)
    mrs(bench)
    bench.fake.set_bits(0, 2)
    msr(bench)
    assert last(bench) == (((FRAME + 2, FRAME + 2),), 1)


def test_entries_that_no_mrs_has_seen_are_not_judged(bench: Bench) -> None:
    """They may have been marked before."""
    bench.fake.set_bits(0, 2)
    mrs(bench, 1)
    msr(bench, 2)
    assert last(bench) == ((), 1)


def test_neither_are_those_of_another_buffer(bench: Bench) -> None:
    bench.fake.set_bits(0, 1, 2)
    mrs(bench, br=BUFFER + 0x1000)
    msr(bench)
    assert last(bench) == ((), 2)


@pytest.mark.parametrize("why", ["no MRS", "no VM at the MRS", "no counters"])
def test_what_nobody_has_seen_is_not_judged(bench: Bench, why: str) -> None:
    if why == "no counters":
        bench.fake.put(bench.fake.vm + SRCU.data, 0x1234)
    if why != "no MRS":
        mrs(bench, vttbr=0x7000 if why == "no VM at the MRS" else VTTBR)
    bench.fake.set_bits(0, 1)
    msr(bench)
    assert last(bench) == ((), 1)


def test_pages_without_a_bitmap_are_not_judged(bench: Bench) -> None:
    """A kernel may have marked them where nobody looks."""
    bench.fill(entry(1), (0x9000 << 12) | 7, (0xA000 << 12) | 7)
    mrs(bench, 3)
    msr(bench, 3)
    assert last(bench) == ((), 2)


def test_a_slot_that_got_another_bitmap_is_not_judged(bench: Bench) -> None:
    mrs(bench)
    bench.fake.add_vm([Slot(0, FRAME, 2048), Slot(5, 0x9000, 8)])
    bench.fake.add_readers()
    bench.fake.set_bits(0, 1)
    msr(bench)
    assert last(bench) == ((), 1)


def test_all_pages_of_a_block_count(bench: Bench) -> None:
    bench.fill(FRAME << 12 | 5)
    bench.fake.set_bits(0, 3)
    mrs(bench, 1)
    bench.fake.set_bits(0, 0, 1, 3)
    msr(bench, 1)
    assert last(bench) == (((FRAME, FRAME + 1),), 1)


def test_with_a_symbol_sections_count_until_its_return(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "drain", readers=True)
    bench.fill(entry(1))
    for turn in range(2):
        mrs(bench, 1)
        msr(bench, 1)
        if turn == 1:
            section(bench)
        bench.fake.set_bits(0, 1)
        bench.watcher.returned(stop(0, 14))
        bench.fake.clear_bits(0)
    flushes = bench.log().flushes
    assert [flush.unprotected for flush in flushes] == [ONE, ()]


def test_a_section_while_we_look_is_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another CPU marks the page between our reading of its bit and our counting."""
    bits: Callable[..., Look] = Kvm._bits

    def slow(self: Kvm, *arguments: Any) -> Look:
        found = bits(self, *arguments)
        section(bench)
        bench.fake.set_bits(0, 1)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Kvm, "_bits", slow)
        mrs(bench)
    msr(bench)
    assert last(bench) == ((), 0)


def test_why_nobody_is_counted_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.fill(entry(1))
    mrs(bench, 1)
    msr(bench, 1)
    log = bench.log()
    assert log.no_srcu == bench.fake.kernel.no_srcu != ""
    assert Bench(tmp_path, readers=True).log().no_srcu == ""
