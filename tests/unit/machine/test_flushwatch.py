# SPDX-License-Identifier: GPL-2.0-or-later
"""What the watcher writes down of a kernel's memory, and how the plugin's calls reach it."""

import socket
import threading
from pathlib import Path
from random import Random

import pytest

from qemu_model.buffers import Why
from qemu_model.errors import InfrastructureError
from qemu_model.flushes import FlushLog, read_flushes
from qemu_model.machine.bufferwatch import BufferWatcher
from qemu_model.machine.flushservice import MESSAGE, Call, FlushService
from qemu_model.machine.flushwatch import FlushPlan, FlushWatcher, Stop
from qemu_model.machine.kernelwatch import KernelWatch
from qemu_model.vmlinux.memory import RAM_BASE
from tests.unit.vmlinux.memory_like import VTTBR, FakeKernel, Slot

BUFFER = RAM_BASE + (1 << 20)
FRAME = 0x1000


def entry(page: int) -> int:
    return (FRAME + page) << 12 | 7


class Bench:
    """A watcher on a fake kernel with one slot of 2048 pages at FRAME."""

    def __init__(
        self, directory: Path, symbol: str | None = None, *, readers: bool = False
    ) -> None:
        self.fake = FakeKernel(directory / "ram")
        self.fake.add_vm([Slot(0, FRAME, 2048), Slot(5, 0x9000, 8, logged=False)])
        if readers:
            self.fake.add_readers()
        self.out = directory / "flushes.jsonl"
        plan = FlushPlan(self.fake.kernel, symbol)
        self.watcher = FlushWatcher(plan, directory / "ram", self.out)
        buffers = BufferWatcher(plan, directory / "ram", directory / "buffers.jsonl")
        self.watch = KernelWatch(self.watcher, buffers)

    def fill(self, *entries: int) -> None:
        """The PE has appended these."""
        self.fake.physical(BUFFER, b"".join(e.to_bytes(8, "little") for e in entries))

    def log(self) -> FlushLog:
        """End, and read what was written."""
        self.watcher.close()
        return read_flushes(self.out)


def stop(index: int, seq: int = 10, *, br: int = BUFFER, vttbr: int = VTTBR, pe: int = 0) -> Stop:
    return Stop(pe, seq, 0x1234, br, index, vttbr)


def test_bits_before_and_after(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.fill(*(entry(page) for page in range(4)))
    bench.fake.set_bits(0, 1)
    bench.watcher.drain_begins(stop(4, 10))
    bench.fake.set_bits(0, 0, 3)
    bench.watcher.flush(stop(4, 12))
    log = bench.log()
    (flush,) = log.flushes
    assert (flush.number, flush.pe, flush.began, flush.seq, flush.seen) == (1, 0, 10, 12, 12)
    assert (flush.place, flush.base, flush.index, flush.noted) == ("drain+0x10", BUFFER, 4, 4)
    assert flush.entries.tolist() == [entry(page) for page in range(4)]
    assert flush.before == ((FRAME + 1, FRAME + 1),)
    assert flush.clean == ((FRAME + 2, FRAME + 2),)
    assert flush.slots == ((0, FRAME, 2048, True, True), (5, 0x9000, 8, False, True))
    assert not flush.error and not log.cut and not log.absent


def test_a_slot_with_another_bitmap_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.fill(entry(1))
    bench.watcher.drain_begins(stop(1, 10))
    bench.fake.add_vm([Slot(0, FRAME, 2048)])
    bench.watcher.drain_begins(stop(1, 11))
    bench.watcher.flush(stop(1, 12))
    bench.watcher.flush(stop(1, 14))
    assert [flush.slots for flush in bench.log().flushes] == [((0, FRAME, 2048, True, False),)] * 2


def test_entries_are_those_of_the_first_look(tmp_path: Path) -> None:
    """What the kernel writes over them afterwards does not matter; new ones are taken."""
    bench = Bench(tmp_path)
    bench.fill(entry(1), entry(2))
    bench.watcher.drain_begins(stop(2, 10))
    bench.fill(0, 0, entry(3))
    bench.watcher.flush(stop(3, 12))
    (flush,) = bench.log().flushes
    assert flush.entries.tolist() == [entry(1), entry(2), entry(3)]
    assert flush.noted == 2


def test_the_first_of_several_beginnings_counts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.fill(entry(1), entry(2))
    bench.watcher.drain_begins(stop(1, 5))
    bench.watcher.drain_begins(stop(2, 8))
    bench.watcher.flush(stop(2, 9))
    bench.watcher.flush(stop(1, 20))
    first, second = bench.log().flushes
    assert (first.began, first.noted) == (5, 2)
    assert (second.began, second.noted, second.before) == (0, 0, ())


def test_with_a_symbol_bits_count_at_its_return(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "drain")
    bench.fill(entry(1))
    bench.watcher.drain_begins(stop(1, 5))
    bench.watcher.flush(stop(1, 6))
    bench.watcher.returned(stop(0, 7, pe=1))
    bench.fake.set_bits(0, 1)
    bench.watcher.returned(stop(0, 8))
    bench.watcher.returned(stop(0, 9))
    bench.watcher.flush(stop(1, 11))
    done, open_ = bench.log().flushes
    assert (done.seq, done.seen, done.clean, done.error) == (6, 8, (), "")
    assert open_.error == "drain did not return after it"


@pytest.mark.parametrize(
    ("br", "vttbr", "says"),
    [(0, VTTBR, "not in RAM"), (RAM_BASE | 15, VTTBR, "reserved SZ"),
     ((1 << 56) - 4096, VTTBR, "not in RAM"), (BUFFER, 0x7000, "no VM")],
)  # fmt: skip
def test_what_cannot_be_seen_is_said(tmp_path: Path, br: int, vttbr: int, says: str) -> None:
    bench = Bench(tmp_path)
    bench.fill(entry(1))
    bench.watcher.drain_begins(stop(1, 5, br=br, vttbr=vttbr))
    bench.watcher.flush(stop(1, 6, br=br, vttbr=vttbr))
    (flush,) = bench.log().flushes
    assert says in flush.error
    assert flush.clean == flush.before == ()


def test_index_beyond_the_buffer_is_its_size(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.watcher.flush(stop(0x7FFFF))
    (flush,) = bench.log().flushes
    assert (flush.index, len(flush.entries), flush.invalid) == (0x7FFFF, 512, 1)


def test_another_kernel_is_not_watched(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.fake.put(bench.fake.kernel.banner_at, b"Linux version 7")
    bench.watcher.flush(stop(1))
    bench.watcher.flush(stop(1))
    log = bench.log()
    assert log.flushes == ()
    assert "not that of vmlinux" in log.absent


def test_a_kernel_that_flushes_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qemu_model.machine.flushwatch.BYTES_MAX", 2000)
    bench = Bench(tmp_path)
    for _ in range(100):
        bench.watcher.flush(stop(1))
    log = bench.log()
    assert 2 < len(log.flushes) < 20
    assert "more than" in log.absent


@pytest.mark.parametrize("symbol", [None, "drain"])
def test_a_kernel_that_flushes_large_buffers_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, symbol: str | None
) -> None:
    """Their lines are short; with a symbol that does not return they would stay in memory."""
    for module in ("machine.flushwatch", "flushes"):
        monkeypatch.setattr(f"qemu_model.{module}.AMOUNT_MAX", 5120)
    bench = Bench(tmp_path, symbol)
    for _ in range(100):
        bench.watcher.flush(stop(512))
    bench.watcher.late()
    log = bench.log()
    assert [len(flush.entries) for flush in log.flushes] == [512] * 10
    assert "more than" in log.absent and not log.late and not log.cut


def test_clean_pages_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("machine.flushwatch", "flushes"):
        monkeypatch.setattr(f"qemu_model.{module}.AMOUNT_MAX", 1600)
    bench = Bench(tmp_path)
    bench.fill(FRAME << 12 | 5)  # a block of 512 pages
    for _ in range(100):
        bench.watcher.flush(stop(1))
    log = bench.log()
    *whole, last = log.flushes
    assert [flush.clean for flush in whole] == [((FRAME, FRAME + 511),)] * 3
    assert "more than" in last.error and (last.slots, last.before, last.clean) == ((), (), ())
    assert "more than" in log.absent and not log.cut


def test_what_came_late_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.fill(entry(1))
    bench.watcher.late()
    bench.watcher.flush(stop(1, 5))
    bench.watcher.late()
    bench.watcher.flush(stop(1, 6))
    bench.watcher.drain_begins(stop(1, 7))
    bench.watcher.late()
    bench.watcher.flush(stop(1, 8))
    assert bench.log().late == {1, 3}


@pytest.mark.parametrize("seed", range(3))
def test_any_memory_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    """Words of tables, lists, slots and of the buffer become pointers, ones or noise."""
    random = Random(seed)
    bench = Bench(tmp_path)
    bench.fill(*(entry(page) for page in range(64)))
    bench.watcher.drain_begins(stop(64, 1))
    ram = bench.fake.ram
    words = [at for at in range(0, len(ram), 8) if any(ram[at : at + 8])]
    interesting = [int.from_bytes(ram[at : at + 8], "little") for at in words]
    for turn in range(40):
        at = random.choice(words)
        old = ram[at : at + 8]
        value = random.choice((random.choice(interesting), random.getrandbits(64), (1 << 64) - 1))
        ram[at : at + 8] = value.to_bytes(8, "little")
        before = stop(64, turn, br=BUFFER | random.randrange(16))
        bench.watcher.drain_begins(before)
        bench.watcher.flush(stop(random.randrange(1, 1 << 19), turn + 1, br=before.hdbssbr))
        if turn % 3:
            ram[at : at + 8] = old
    log = bench.log()
    assert len(log.flushes) == 40 and not log.cut and not log.absent


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    fake = FakeKernel(tmp_path / "ram")
    with pytest.raises(InfrastructureError):
        FlushWatcher(FlushPlan(fake.kernel), tmp_path / "ram", tmp_path / "no" / "flushes.jsonl")


class Plugin:
    """The other end of a service, in this process."""

    def __init__(self, service: FlushService) -> None:
        self.socket = socket.socket(fileno=service.theirs.detach())
        self.socket.settimeout(10)
        self.number = 0

    def tell(self, kind: int, at: Stop, missed: int = 0) -> None:
        self.number += 1
        values = (at.seq, at.pc, at.hdbssbr, at.hdbssprod, at.vttbr)
        self.socket.send(MESSAGE.pack(kind, at.pe, self.number, missed, *values))
        assert self.socket.recv(1) == bytes([self.number & 0xFF])


def test_calls_reach_the_watcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    bench.fill(entry(1))
    whys: list[Why] = []
    monkeypatch.setattr(bench.watch, "buffer", lambda why, stop: whys.append(why))
    service = FlushService(bench.watch)
    plugin = Plugin(service)
    service.start()
    for _ in range(200):
        plugin.tell(Call.DRAIN_BEGINS, stop(1, 5))
        plugin.tell(Call.FLUSH, stop(1, 6))
    for call in (Call.ANNOUNCED, Call.APPENDED, Call.WITHDRAWN):
        plugin.tell(call, stop(0))
    plugin.tell(Call.FLUSH, stop(1, 6))
    plugin.tell(Call.END, stop(0), missed=1)
    plugin.socket.close()
    service.finish()
    service.close()
    log = read_flushes(bench.out)
    assert whys == [Why.ANNOUNCED, Why.APPENDED, Why.WITHDRAWN]
    assert len(log.flushes) == 201 and log.late == {201}
    assert log.flushes[0].began == 5 and log.flushes[0].clean == ((FRAME + 1, FRAME + 1),)


@pytest.mark.parametrize("message", [b"x", bytes(64), MESSAGE.pack(9, 0, 1, 0, 0, 0, 0, 0, 0)])
def test_a_plugin_that_speaks_otherwise(tmp_path: Path, message: bytes) -> None:
    service = FlushService(Bench(tmp_path).watch)
    plugin = Plugin(service)
    service.start()
    plugin.socket.send(message)
    assert plugin.socket.recv(1) == b""  # and does not wait for an answer
    with pytest.raises(InfrastructureError, match="the plugin sent"):
        service.finish()
    service.close()


def test_a_service_that_is_closed_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    service = FlushService(bench.watch)
    plugin = Plugin(service)
    service.start()
    service.close()
    service.close()
    assert plugin.socket.recv(1) == b""
    assert not any(thread.name == "flushes" for thread in threading.enumerate())
    assert not read_flushes(bench.out).cut


def test_a_service_that_never_started_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    service = FlushService(bench.watch)
    service.finish()
    service.close()
    assert read_flushes(bench.out).flushes == ()
