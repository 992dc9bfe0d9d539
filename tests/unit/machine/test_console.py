# SPDX-License-Identifier: GPL-2.0-or-later
"""The console: stages, deaths, hostile output, and pexpect at the end of the stream."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from qemu_model.machine.console import LINE_MAX, BootLog, Console, Stage, clean

SPLAT = b"[    1.0] WARNING: CPU: 0 PID: 1 at arch/arm64/kvm/mmu.c:1 f+0x0/0x4"


def log_of(*lines: bytes) -> BootLog:
    log = BootLog()
    for number, line in enumerate(lines):
        log.line(line, float(number))
    return log


def test_stages_in_order() -> None:
    log = log_of(
        b"[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x000f0510]",
        b"[    0.000000] Linux version 6.12.117+ (hdbss@bench)",
        b"[    0.4] kvm [1]: VHE mode initialized successfully",
        b"[    0.5] Run /init as init process",
    )
    assert log.reached == {Stage.KERNEL: 0.0, Stage.KVM: 2.0, Stage.INIT: 3.0}
    assert log.stage is Stage.INIT
    assert BootLog().stage is Stage.STARTED


@pytest.mark.parametrize(
    "line",
    [
        b"kvm [1]: Hyp nVHE mode initialized successfully",
        b"kvm [42]: VHE mode initialized successfully",
    ],
)
def test_kvm_modes(line: bytes) -> None:
    assert Stage.KVM in log_of(line).reached


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"kvm [1]: HYP mode not available", "HYP mode not available"),
        (b"kvm [1]: KVM disabled from command line", "KVM disabled from command line"),
        (b"kvm [1]: error initializing Hyp mode: -12", "error initializing Hyp mode: -12"),
    ],
)
def test_kvm_failures(line: bytes, why: str) -> None:
    log = log_of(line)
    assert log.kvm_failure == why
    assert Stage.KVM not in log.reached


def test_panic_oops_and_warnings() -> None:
    log = log_of(
        SPLAT,
        b"[ 1.1] Internal error: Oops: 0000000096000004 [#1] SMP",
        b"[ 1.2] Kernel panic - not syncing: Oops: Fatal exception",
        b"[ 1.3] Kernel panic - not syncing: a second one",
    )
    assert log.panic == "Oops: Fatal exception"
    assert log.oops == "[ 1.1] Internal error: Oops: 0000000096000004 [#1] SMP"
    assert len(log.trouble) == 2


def test_a_healthy_line_is_no_trouble() -> None:
    log = log_of(b"[    0.0] Debug: BUGs are fine; panic=-1; oops is a word")
    assert (log.panic, log.oops, log.trouble) == (None, None, [])


def test_what_is_kept_is_bounded() -> None:
    log = log_of(*[SPLAT + b"x" * 1000] * 1000)
    assert len(log.trouble) == 100
    assert len(log.last_lines) == 25
    assert max(map(len, log.last_lines)) <= 500


def test_lines_are_safe_to_print() -> None:
    assert clean(b"\x1b[31mred\x1b[0m \x07bell \x1b]0;title\x07 \xff\r\n").isprintable()
    assert clean(b"\x1b[2J\x1b[Hgone") == "gone"
    assert clean(b"\xc2\x9b31mC1") == "31mC1"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_lines_arrive_in_pieces(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    log, seen = BootLog(), bytearray()
    console = Console(ours.fileno(), log, seen.extend)
    theirs.sendall(b"one\r\ntw")
    console.pump(1.0)
    assert list(log.last_lines) == ["one"]
    theirs.sendall(b"o\nlast without end")
    theirs.close()
    console.drain(5.0)
    assert console.ended
    assert list(log.last_lines) == ["one", "two", "last without end"]
    assert bytes(seen) == b"one\r\ntwo\nlast without end"
    assert console.count == len(seen)


def test_pump_waits_no_longer_than_told(pair: tuple[socket.socket, socket.socket]) -> None:
    console = Console(pair[0].fileno(), BootLog(), lambda data: None)
    start = time.monotonic()
    console.pump(0.1)
    assert time.monotonic() - start < 2
    assert not console.ended


def test_a_line_without_end_is_cut(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    pieces: list[bytes] = []
    console = Console(ours.fileno(), BootLog(), pieces.append)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    theirs.sendall(b"x" * (2 * LINE_MAX + 5))
    theirs.close()
    console.drain(5.0)
    assert [len(piece) for piece in pieces] == [LINE_MAX, LINE_MAX, 5]


def test_a_flood_without_newlines_is_read_quickly(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    console = Console(ours.fileno(), BootLog(), lambda data: None)
    flood = threading.Thread(target=theirs.sendall, args=(b"x" * (4 << 20),))
    flood.start()
    start = time.monotonic()
    while console.count < 4 << 20:
        console.pump(1.0)
        assert time.monotonic() - start < 10
    flood.join()


def test_a_killed_sender_is_the_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    console = Console(ours.fileno(), BootLog(), lambda data: None)
    ours.sendall(b"never read: closing now resets the connection")
    theirs.close()
    console.drain(5.0)
    assert console.ended
