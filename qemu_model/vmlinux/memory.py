# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory of a running kernel, by its virtual addresses, in the file of the machine's RAM.

The kernel is hostile: whatever its tables say, reads stay inside the file, and a walk has
no more steps than levels.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Self

from qemu_model.vmlinux.kernelmap import KernelMap

RAM_BASE = 0x4000_0000
"""Where the virt machine's RAM starts."""
READ_MAX = 16 << 20
"""Bytes that one read may want."""
_FINAL_LEVEL = 3
_VALID, _TABLE = 1, 2
_OUTPUT = (1 << 48) - 1
"""Output address; its bits above 47 stand elsewhere, and RAM never lies there."""
_VA_BITS = (52, 48, 47, 42, 39, 36)
"""What CONFIG_ARM64_VA_BITS can be."""
_TAG = 0xFF << 56
_CACHED_PAGES = 1 << 16


class Unreadable(Exception):
    """The kernel's memory does not have what is looked for; the message says what."""


class Ram:
    """The machine's RAM, mapped for reading; ``size`` in bytes.

    Raises Unreadable when the file is missing or is none.
    """

    def __init__(self, path: Path, base: int = RAM_BASE) -> None:
        self.base = base
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise Unreadable(f"the machine's RAM {path}: {error}") from error
        self.size = len(self._map)

    def read(self, pa: int, size: int) -> bytes:
        """Bytes at a physical address; Unreadable outside RAM."""
        start = pa - self.base
        if size < 0 or size > READ_MAX or start < 0 or start + size > self.size:
            raise Unreadable(f"{size} bytes at physical address {pa:#x} are not in RAM")
        return self._map[start : start + size]

    def close(self) -> None:
        """Unmap."""
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


class KernelMemory:
    """Reads by virtual address through ``swapper_pg_dir``.

    The tables change while the machine runs: ``forget()`` before each look.  Raises
    Unreadable when memory does not hold the kernel of this map, or one whose tables have
    another form than those of arm64 Linux (4, 16 or 64 KB pages, 36 to 52 bits).
    """

    def __init__(self, ram: Ram, kernel: KernelMap) -> None:
        self._ram = ram
        self._shift = kernel.page_shift
        self._pages: dict[int, int] = {}
        self._image_at = ram.base + kernel.load_offset - kernel.text
        self._root = self.image(kernel.swapper)
        if ram.read(self.image(kernel.banner_at), len(kernel.banner)) != kernel.banner:
            raise Unreadable(
                "the running kernel is not that of vmlinux: its linux_banner is another one"
            )
        self._va_bits = self._find_va_bits(kernel)

    def forget(self) -> None:
        """Forget translations: the kernel may have changed them."""
        self._pages.clear()

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a virtual address; Unreadable where nothing is mapped or it is not RAM."""
        if not 0 <= size <= READ_MAX:
            raise Unreadable(f"{size} bytes at {address:#x} are too many")
        page = 1 << self._shift
        found = []
        while size:
            part = min(size, page - address % page)
            found.append(self._ram.read(self._physical(address), part))
            address, size = address + part, size - part
        return found[0] if len(found) == 1 else b"".join(found)

    def number(self, address: int, size: int = 8) -> int:
        """A little-endian unsigned number of ``size`` bytes."""
        return int.from_bytes(self.read(address, size), "little")

    def image(self, address: int) -> int:
        """The physical address of something in the kernel's Image."""
        return address + self._image_at

    def _find_va_bits(self, kernel: KernelMap) -> int:
        """The size of addresses with which the tables lead from variables to the Image.

        No variable of the kernel says what the PE has made of CONFIG_ARM64_VA_BITS=52.
        """
        known = (kernel.banner_at, kernel.vm_list)
        for bits in _VA_BITS:
            try:
                found = [self._walk(address, bits) for address in known]
            except Unreadable:
                continue
            if found == [self.image(address) for address in known]:
                return bits
        raise Unreadable("the kernel's page tables do not lead to its own variables")

    def _physical(self, address: int) -> int:
        if address >> 55 & 1:
            address |= _TAG  # KASAN's
        page, within = address >> self._shift, address & (1 << self._shift) - 1
        found = self._pages.get(page)
        if found is None:
            found = self._walk(page << self._shift, self._va_bits)
            if len(self._pages) < _CACHED_PAGES:
                self._pages[page] = found
        return found + within

    def _walk(self, address: int, va_bits: int) -> int:
        """Physical address by the tables of TTBR1_EL2 for ``va_bits`` bits of address."""
        shift, step = self._shift, self._shift - 3
        if address >> va_bits != (1 << 64 - va_bits) - 1:
            raise Unreadable(f"{address:#x} is no address of the kernel")
        level = _FINAL_LEVEL + 1 - -(-(va_bits - shift) // step)
        table, left = self._root, address & (1 << va_bits) - 1
        while True:
            low = shift + step * (_FINAL_LEVEL - level)
            at = table + 8 * (left >> low)
            descriptor = int.from_bytes(self._ram.read(at, 8), "little")
            output = descriptor & _OUTPUT
            if not descriptor & _VALID:
                raise Unreadable(f"nothing is mapped at {address:#x}")
            if level == _FINAL_LEVEL or not descriptor & _TABLE:
                return (output >> low << low) + (left & (1 << low) - 1)
            table = output >> shift << shift
            left &= (1 << low) - 1
            level += 1
