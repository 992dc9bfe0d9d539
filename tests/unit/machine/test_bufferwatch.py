# SPDX-License-Identifier: GPL-2.0-or-later
"""What the watcher writes down of struct page, and who is told of which moment."""

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from qemu_model.buffers import BufferLog, PageRun, Why, read_buffers
from qemu_model.errors import InfrastructureError
from qemu_model.flushes import read_flushes
from qemu_model.machine.bufferwatch import BufferWatcher
from qemu_model.machine.command import RunFiles
from qemu_model.machine.flushwatch import FlushPlan, Stop
from qemu_model.machine.kernelwatch import kernel_watch
from qemu_model.vmlinux.memory import RAM_BASE
from tests.unit.vmlinux.memory_like import (
    BUDDY,
    LOAD,
    TEXT,
    UNTYPED,
    VTTBR,
    ZERO_PAGE,
    FakeKernel,
    Slot,
)

BUFFER = RAM_BASE + (1 << 20)
FRAME = BUFFER >> 12
MINE = PageRun(1, 1, UNTYPED, False, -1)


class Bench:
    """A watcher on a fake kernel with struct page for all of its memory."""

    def __init__(self, directory: Path, struct_pages: bool = True) -> None:
        self.fake = FakeKernel(directory / "ram")
        if struct_pages:
            self.fake.add_struct_pages()
        self.out = directory / "buffers.jsonl"
        plan = FlushPlan(self.fake.kernel)
        self.watcher = BufferWatcher(plan, directory / "ram", self.out)

    def log(self) -> BufferLog:
        """End, and read what was written."""
        self.watcher.close()
        return read_buffers(self.out)


def stop(seq: int = 10, *, br: int = BUFFER, pe: int = 0) -> Stop:
    return Stop(pe, seq, 0x1234, br, 1, VTTBR)


def test_what_is_seen_of_a_buffer(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.watcher.look(Why.DRAIN, stop(12, pe=1))
    bench.fake.set_page(FRAME, refcount=0, page_type=BUDDY, private=1)
    bench.watcher.look(Why.FLUSH, stop(13, br=BUFFER | 1))
    log = bench.log()
    first, second = log.looks
    assert (first.number, first.why, first.pe, first.seq) == (1, Why.DRAIN, 1, 12)
    assert (first.place, first.hdbssbr, first.first, first.frames) == (
        "drain+0x10", BUFFER, FRAME, 1,
    )  # fmt: skip
    assert (first.runs, first.owner, first.free, first.error) == ((MINE,), 1, (), "")
    assert first.zero == ZERO_PAGE - TEXT + RAM_BASE + LOAD >> 12
    assert (second.frames, second.owner, second.free) == (2, 0, ((FRAME, FRAME + 1),))
    assert second.runs == (PageRun(1, 0, BUDDY, False, -1), MINE)
    assert not log.absent and not log.cut


def test_buffers_that_pes_have_at_the_end_are_looked_at(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.watcher.look(Why.ANNOUNCED, stop(3))
    bench.watcher.look(Why.ANNOUNCED, stop(4, pe=1))
    bench.watcher.look(Why.WITHDRAWN, stop(5))
    bench.fake.set_page(FRAME, refcount=0)
    *_, last = bench.log().looks
    assert (last.why, last.pe, last.owner, last.number) == (Why.END, 1, 0, 4)


@pytest.mark.parametrize(
    ("br", "says"),
    [(0x1000, "not in RAM"), (BUFFER | 15, "reserved SZ"), ((1 << 56) - 4096, "not in RAM")],
)
def test_what_cannot_be_seen_is_said(tmp_path: Path, br: int, says: str) -> None:
    bench = Bench(tmp_path)
    bench.watcher.look(Why.FLUSH, stop(br=br))
    (look,) = bench.log().looks
    assert says in look.error and look.runs == ()


def test_a_kernel_that_is_not_up_yet_is_looked_at_later(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    banner = bench.fake.kernel.banner_at
    bench.fake.put(banner, b"\0" * 8)
    bench.watcher.look(Why.ANNOUNCED, stop(1))
    bench.fake.put(banner, b"Linux ve")
    bench.watcher.look(Why.ANNOUNCED, stop(2))
    first, second, *_ = bench.log().looks
    assert "not that of vmlinux" in first.error and second.error == ""


def test_a_vmlinux_that_does_not_tell(tmp_path: Path) -> None:
    bench = Bench(tmp_path, struct_pages=False)
    bench.watcher.look(Why.FLUSH, stop())
    log = bench.log()
    assert (log.looks, log.absent) == ((), bench.fake.kernel.no_pages)


def test_a_kernel_that_writes_registers_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qemu_model.machine.bufferwatch.BYTES_MAX", 2000)
    bench = Bench(tmp_path)
    for _ in range(100):
        bench.watcher.look(Why.FLUSH, stop())
    log = bench.log()
    assert 2 < len(log.looks) < 20 and "more than" in log.absent and not log.cut


def test_what_came_late_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.watcher.late()
    bench.watcher.look(Why.FLUSH, stop())
    bench.watcher.late()
    bench.watcher.late()
    bench.watcher.look(Why.FLUSH, stop())
    assert bench.log().late == {1}


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    fake = FakeKernel(tmp_path / "ram")
    with pytest.raises(InfrastructureError):
        BufferWatcher(FlushPlan(fake.kernel), tmp_path / "ram", tmp_path / "no" / "buffers.jsonl")


@pytest.mark.parametrize("seed", range(3))
def test_any_memory_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    """Words of tables, of mem_section and of struct page become pointers, ones or noise."""
    random = Random(seed)
    bench = Bench(tmp_path)
    ram = bench.fake.ram
    words = [at for at in range(0, len(ram), 8) if any(ram[at : at + 8])]
    interesting = [int.from_bytes(ram[at : at + 8], "little") for at in words]
    for turn in range(200):
        at = random.choice(words)
        value = random.choice((random.choice(interesting), random.getrandbits(64), (1 << 64) - 1))
        ram[at : at + 8] = value.to_bytes(8, "little")
        bench.watcher.look(random.choice(list(Why)), stop(turn, br=BUFFER | random.randrange(16)))
    log = bench.log()
    assert len(log.looks) >= 200 and not log.cut and not log.absent


def test_each_moment_reaches_those_whom_it_concerns(tmp_path: Path) -> None:
    fake = FakeKernel(tmp_path / "ram")
    fake.add_struct_pages()
    fake.add_vm([Slot(0, 0x1000, 64)])
    files = RunFiles(tmp_path)
    watch = kernel_watch(FlushPlan(fake.kernel), files)
    watch.buffer(Why.ANNOUNCED, stop(1))
    watch.buffer(Why.APPENDED, stop(2))
    watch.drain_begins(stop(3))
    watch.flush(stop(4))
    watch.late()
    watch.buffer(Why.WITHDRAWN, stop(5))
    watch.late()
    watch.returned(replace(stop(6)))
    watch.late()
    watch.close()
    buffers, flushes = read_buffers(files.buffers), read_flushes(files.flushes)
    assert [(look.why, look.seq) for look in buffers.looks] == [
        (Why.ANNOUNCED, 1), (Why.APPENDED, 2), (Why.DRAIN, 3), (Why.FLUSH, 4), (Why.WITHDRAWN, 5),
    ]  # fmt: skip
    assert buffers.late == {4, 5}
    assert [flush.began for flush in flushes.flushes] == [3] and flushes.late == {1}
