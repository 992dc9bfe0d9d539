# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs: a newc cpio archive with the agent and its program, the same bytes every time.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qemu_model.errors import UsageError
from qemu_model.machine.cache import file_trouble

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_S_IFDIR, _S_IFREG, _S_IFCHR = 0o040000, 0o100000, 0o020000
#: The header's sizes are 32 bits wide.
_SIZE_MAX = 0xFFFFFFFF


@dataclass(frozen=True)
class Entry:
    """One file of the archive: name without a leading slash, mode with file type."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def cpio(entries: Sequence[Entry]) -> bytes:
    """Return a newc archive; owner root, modification times 0, inodes numbered in order.

    Raises ValueError for a name or a file that the format cannot hold.
    """
    out: list[bytes] = []
    for number, entry in enumerate([*entries, Entry(_TRAILER, 0)], 1):
        name = entry.name.encode() + b"\0"
        if b"\0" in name[:-1] or entry.name.startswith("/") or len(entry.data) > _SIZE_MAX:
            raise ValueError(f"{entry.name!r} cannot stand in a cpio archive")
        inode = 0 if entry.name == _TRAILER else number
        links = 2 if entry.mode & 0o170000 == _S_IFDIR else 1
        fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device,
                  len(name), 0)  # fmt: skip
        out.append(_pad(_MAGIC + b"".join(b"%08x" % value for value in fields) + name))
        out.append(_pad(entry.data))
    return b"".join(out)


def initramfs(agent: bytes, program: str) -> bytes:
    """Return the archive the kernel unpacks: /init, /program, mount points, /dev/console.

    The kernel opens /dev/console for /init before anything can mount devtmpfs.
    """
    return cpio(
        [
            Entry("dev", _S_IFDIR | 0o755),
            Entry("dev/console", _S_IFCHR | 0o600, device=(5, 1)),
            Entry("proc", _S_IFDIR | 0o755),
            Entry("sys", _S_IFDIR | 0o755),
            Entry("init", _S_IFREG | 0o755, agent),
            Entry("program", _S_IFREG | 0o644, program.encode()),
        ]
    )


def write_initramfs(path: Path, agent: Path, program: str) -> None:
    """Write the archive to ``path``; raises UsageError or InfrastructureError."""
    try:
        code = agent.read_bytes()
    except OSError as error:
        raise file_trouble("read", agent, error) from error
    # e_machine of an ELF header: EM_AARCH64. Anything else ends in a panic that says little.
    if code[:4] != b"\x7fELF" or code[18:20] != b"\xb7\x00":
        raise UsageError(f"{agent} is not an arm64 program")
    try:
        path.write_bytes(initramfs(code, program))
    except OSError as error:
        raise file_trouble("write", path, error) from error
