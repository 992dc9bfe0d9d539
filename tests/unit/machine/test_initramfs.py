# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs: deterministic, and read back by the real cpio."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine.initramfs import Entry, cpio, initramfs, write_initramfs

ELF = b"\x7fELF" + bytes(14) + b"\xb7\x00" + b"agent"


def test_same_input_same_bytes() -> None:
    assert initramfs(ELF, "vm\n") == initramfs(ELF, "vm\n")
    assert initramfs(ELF, "vm\n") != initramfs(ELF, "vm \n")


def test_layout() -> None:
    data = cpio([Entry("a", 0o100644, b"xyz")])
    # header 110 + name 2 = 112, 3 bytes of data padded to 4, then the trailer
    assert data[:6] == b"070701"
    assert data[54:62] == b"00000003"
    assert data[110:112] == b"a\0"
    assert data[112:116] == b"xyz\0"
    assert data[116:122] == b"070701"
    assert len(data) % 4 == 0


@pytest.mark.parametrize("name", ["/abs", "a\0b"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match="cannot stand in a cpio archive"):
        cpio([Entry(name, 0o100644)])


def test_cpio_reads_it(tmp_path: Path) -> None:
    program = shutil.which("cpio")
    if program is None:
        pytest.skip("no cpio on this host")
    listing = subprocess.run(
        [program, "-tv", "--quiet"], input=initramfs(ELF, "uapi cap=1\nvm\n"), capture_output=True
    )
    assert listing.returncode == 0, listing.stderr
    lines = listing.stdout.decode().splitlines()
    assert [line.split()[-1] for line in lines] == [
        "dev", "dev/console", "proc", "sys", "init", "program",
    ]  # fmt: skip
    assert lines[1].startswith("crw-------")
    assert "5,   1" in lines[1]
    assert lines[4].startswith("-rwxr-xr-x")
    out = subprocess.run(
        [program, "-i", "--quiet", "--to-stdout", "program"],
        input=initramfs(ELF, "uapi cap=1\nvm\n"),
        capture_output=True,
    )
    assert out.stdout == b"uapi cap=1\nvm\n"


def test_write_and_its_errors(tmp_path: Path) -> None:
    agent = tmp_path / "init"
    agent.write_bytes(ELF)
    write_initramfs(tmp_path / "out", agent, "vm\n")
    assert (tmp_path / "out").read_bytes() == initramfs(ELF, "vm\n")
    with pytest.raises(InfrastructureError, match="cannot read"):
        write_initramfs(tmp_path / "out", tmp_path / "none", "")
    with pytest.raises(InfrastructureError, match="cannot write"):
        write_initramfs(tmp_path / "no" / "out", agent, "")
    agent.write_bytes(b"\x7fELF" + bytes(14) + b"\x3e\x00")
    with pytest.raises(UsageError, match="is not an arm64 program"):
        write_initramfs(tmp_path / "out", agent, "")
