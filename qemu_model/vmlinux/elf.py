# SPDX-License-Identifier: GPL-2.0-or-later
"""A vmlinux: its symbols, its code, and whether it belongs to an Image."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from qemu_model.errors import InfrastructureError, UsageError

_SYMBOL = struct.Struct("<IBBHQQ")
"""Elf64_Sym: name, info, other, shndx, value, size."""
_NAMELESS_TYPES = (3, 4)
"""STT_SECTION, STT_FILE"""
_SECTION_HEADER = 64
"""Bytes of an Elf64_Shdr."""
_ADDRESSES = 1 << 64
_COMPARED = 1 << 20
"""Bytes of the code that are compared with an Image at a time."""


@dataclass(frozen=True)
class Code:
    """An executable section: its virtual address and its bytes."""

    address: int
    data: bytes


@dataclass(frozen=True, order=True)
class Symbol:
    """One entry of the symbol table; ``size`` in bytes, 0 where the assembler gave none."""

    address: int
    size: int
    name: str


@dataclass(frozen=True)
class _Section:
    """One section; ``offset`` and ``size`` in bytes lie inside the file where it has bytes."""

    name: str
    type: str | int
    flags: int
    address: int
    offset: int
    size: int


class Vmlinux:
    """An arm64 kernel's ELF file with symbols.

    Raises UsageError when the file is missing, is not an arm64 ELF file, is damaged or
    was stripped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stream = path.open("rb")
        except OSError as error:
            raise UsageError(f"vmlinux {path}: {error.strerror}") from error
        try:
            self.elf = ELFFile(self._stream)
            native = self.elf["e_machine"] == "EM_AARCH64" and self.elf.elfclass == 64
            if native and self.elf.little_endian:
                self._sections = self._read_sections()
        except UsageError:
            raise
        except Exception as error:
            # The file is anybody's: pyelftools raises whatever it stumbles over.
            why = str(error) or type(error).__name__
            raise UsageError(f"vmlinux {path}: it is no ELF file, or damaged: {why}") from error
        if not native or not self.elf.little_endian:
            raise UsageError(f"vmlinux {path}: it is not for little-endian arm64")
        if not self.symbols:
            raise UsageError(
                f"vmlinux {path}: it has no symbols; give the one of the kernel build, not stripped"
            )

    @cached_property
    def symbols(self) -> dict[str, tuple[Symbol, ...]]:
        """All symbols by name; static functions of one name are several."""
        found: dict[str, list[Symbol]] = {}
        data, text = self.data(".symtab"), self.data(".strtab")
        usable = len(data) - len(data) % _SYMBOL.size
        for name, info, _, section, value, size in _SYMBOL.iter_unpack(data[:usable]):
            if section == 0 or info & 0xF in _NAMELESS_TYPES:
                continue
            end = text.find(b"\0", name)
            word = text[name:end].decode("ascii", "replace") if end > name else ""
            if word and not word.startswith("$"):  # $x, $d: mapping symbols
                found.setdefault(word, []).append(Symbol(value, size, word))
        return {name: tuple(entries) for name, entries in found.items()}

    @cached_property
    def _sorted(self) -> tuple[Symbol, ...]:
        return tuple(sorted(s for entries in self.symbols.values() for s in entries))

    @cached_property
    def _starts(self) -> list[int]:
        return [symbol.address for symbol in self._sorted]

    def find(self, name: str) -> Symbol | None:
        """The symbol of that name; None without one, UsageError if there are several."""
        found = self.symbols.get(name, ())
        addresses = {symbol.address for symbol in found}
        if len(addresses) > 1:
            raise UsageError(
                f"vmlinux {self.path}: {len(addresses)} symbols are called {name}; "
                "name one that is unique"
            )
        return found[0] if found else None

    def address(self, name: str) -> int:
        """The address of a symbol; UsageError when there is none of that name."""
        symbol = self.find(name)
        if symbol is None:
            raise UsageError(f"vmlinux {self.path}: there is no symbol {name}")
        return symbol.address

    def place(self, expression: str) -> int:
        """The address of ``SYMBOL`` or ``SYMBOL+OFFSET``; UsageError if it is none."""
        name, plus, offset = expression.partition("+")
        try:
            distance = int(offset, 0) if plus else 0
        except ValueError:
            raise UsageError(f"{expression!r} is not SYMBOL or SYMBOL+OFFSET") from None
        address = self.address(name.strip()) + distance
        if distance < 0 or address >= _ADDRESSES:
            raise UsageError(f"{expression!r} is not an address behind the symbol")
        return address

    def name_of(self, address: int) -> str:
        """``symbol+0x10`` for an address, the bare number where no symbol is near."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address - self._starts[at] > 1 << 20:
            return f"{address:#x}"
        offset = address - self._starts[at]
        name = self._sorted[bisect_left(self._starts, self._starts[at])].name
        return f"{name}+{offset:#x}" if offset else name

    def code(self) -> Iterator[Code]:
        """The executable sections."""
        for section in self._sections:
            if section.flags & SH_FLAGS.SHF_EXECINSTR and section.type == "SHT_PROGBITS":
                yield Code(section.address, self._bytes(section))

    def data(self, section: str) -> bytes:
        """The bytes of a section, none if it does not exist."""
        found = self._section(section)
        return b"" if found is None else self._bytes(found)

    def section_address(self, section: str) -> int:
        """The virtual address of a section, 0 if it does not exist."""
        found = self._section(section)
        return 0 if found is None else found.address

    def _section(self, name: str) -> _Section | None:
        return next((section for section in self._sections if section.name == name), None)

    def _bytes(self, section: _Section) -> bytes:
        if section.type == "SHT_NOBITS":
            return b""
        try:
            self._stream.seek(section.offset)
            return self._stream.read(section.size)
        except OSError as error:
            raise UsageError(f"vmlinux {self.path}: {error.strerror}") from error

    def _read_sections(self) -> tuple[_Section, ...]:
        """The section table; sizes are checked, so that nothing reads or loops beyond the file."""
        size = self.path.stat().st_size
        if self.elf["e_shoff"] and self.elf["e_shentsize"] != _SECTION_HEADER:
            raise UsageError(f"vmlinux {self.path}: it is damaged: e_shentsize")
        count = self.elf.num_sections()
        if self.elf["e_shoff"] + count * _SECTION_HEADER > size:
            raise UsageError(f"vmlinux {self.path}: it is truncated: no section table")
        found = []
        for part in self.elf.iter_sections():
            values = (part[f"sh_{name}"] for name in ("type", "flags", "addr", "offset", "size"))
            section = _Section(part.name, *values)
            if section.type != "SHT_NOBITS" and section.offset + section.size > size:
                raise UsageError(
                    f"vmlinux {self.path}: it is truncated or damaged: section {section.name!r}"
                )
            found.append(section)
        return tuple(found)

    def require_image(self, image: Path) -> None:
        """Compare the code with that of an Image; InfrastructureError if it is another build's.

        An Image is the kernel's memory from ``_text`` on, and nothing is relocated in code.
        """
        start = self.address("_text")
        compared = 0
        try:
            with image.open("rb") as file:
                for code in self.code():
                    if code.address < start:
                        continue
                    for at in range(0, len(code.data), _COMPARED):
                        ours = code.data[at : at + _COMPARED]
                        theirs = b""
                        if code.address - start + at < image.stat().st_size:
                            file.seek(code.address - start + at)
                            theirs = file.read(len(ours))
                        if theirs != ours:
                            raise InfrastructureError(
                                f"vmlinux {self.path} does not match the kernel {image}: the "
                                f"code differs; give the two files of one build"
                            )
                        compared += len(ours)
        except OSError as error:
            raise UsageError(f"{image}: {error.strerror}") from error
        if not compared:
            raise UsageError(f"vmlinux {self.path}: it has no code behind _text")
