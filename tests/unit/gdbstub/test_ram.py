# SPDX-License-Identifier: GPL-2.0-or-later
"""The RAM file as memory: words where it is, nothing where it is not."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_model.arch.registers import ProdFsc
from qemu_model.errors import InfrastructureError
from qemu_model.gdbstub.ram import RamFile

BASE, SIZE = 0x4000_0000, 0x1000
END = BASE + SIZE


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[RamFile]:
    path = tmp_path / "ram"
    path.write_bytes(bytes(SIZE))
    with RamFile(path, BASE) as made:
        yield made


def test_words_are_little_endian_and_in_the_file(ram: RamFile, tmp_path: Path) -> None:
    assert (ram.base, ram.size) == (BASE, SIZE)
    assert ram.write64(BASE + 8, 0x0102_0304_0506_0708) is ProdFsc.NONE
    assert ram.read64(BASE + 8) == 0x0102_0304_0506_0708
    assert (ram.read32(BASE + 8), ram.read32(BASE + 12)) == (0x0506_0708, 0x0102_0304)
    assert (tmp_path / "ram").read_bytes()[8:16] == bytes((8, 7, 6, 5, 4, 3, 2, 1))


def test_what_another_process_writes_is_seen(ram: RamFile, tmp_path: Path) -> None:
    with (tmp_path / "ram").open("r+b") as file:
        file.write(b"\x2a")
    assert ram.read64(BASE) == 42


def test_the_last_word(ram: RamFile) -> None:
    assert ram.write64(END - 8, (1 << 64) - 1) is ProdFsc.NONE
    assert ram.read64(END - 8) == (1 << 64) - 1


@pytest.mark.parametrize(
    "pa", [0, BASE - 8, END, END + 8, END - 4, BASE + 1, BASE + 4, -8, 1 << 63, (1 << 64) - 8]
)
def test_where_there_is_no_memory(ram: RamFile, pa: int) -> None:
    assert ram.read64(pa) is None
    assert ram.write64(pa, 1) is ProdFsc.EXTERNAL_ABORT
    assert ram.compare_and_swap64(pa, 0, 1) is None


@pytest.mark.parametrize("pa", [BASE - 4, END, BASE + 2])
def test_where_there_is_no_instruction(ram: RamFile, pa: int) -> None:
    assert ram.read32(pa) is None


def test_compare_and_swap(ram: RamFile) -> None:
    assert ram.compare_and_swap64(BASE, 0, 5) == 0
    assert ram.compare_and_swap64(BASE, 0, 9) == 5
    assert ram.read64(BASE) == 5


@pytest.mark.parametrize("name", ["no-such-file", "."])
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(InfrastructureError, match=r"cannot open the machine's RAM .*: "):
        RamFile(tmp_path / name, BASE)


def test_a_file_that_has_shrunk(ram: RamFile, tmp_path: Path) -> None:
    os.truncate(tmp_path / "ram", 12)
    assert ram.read64(BASE) == 0
    assert ram.read64(BASE + 8) is None
    assert ram.compare_and_swap64(BASE + 8, 0, 1) is None


def test_a_full_disk(ram: RamFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InfrastructureError, match=r"cannot write the machine's RAM .*: No space"):
        ram.write64(BASE, 1)


def test_a_disk_that_fails(ram: RamFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(
        InfrastructureError, match=r"cannot read the machine's RAM .*: Input/output"
    ):
        ram.compare_and_swap64(BASE, 0, 1)
