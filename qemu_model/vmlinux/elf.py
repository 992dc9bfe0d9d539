# SPDX-License-Identifier: GPL-2.0-or-later
"""A vmlinux: its symbols, its code, and whether it belongs to an Image."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section

from qemu_model.errors import UsageError

_SYMBOL = struct.Struct("<IBBHQQ")
"""Elf64_Sym: name, info, other, shndx, value, size."""
_NAMELESS_TYPES = (3, 4)
"""STT_SECTION, STT_FILE"""
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


class Vmlinux:
    """An arm64 kernel's ELF file with symbols.

    Raises UsageError when the file is missing, is not an arm64 ELF file or was stripped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stream = path.open("rb")
            self.elf = ELFFile(self._stream)
        except OSError as error:
            raise UsageError(f"vmlinux {path}: {error.strerror}") from error
        except ELFError as error:
            raise UsageError(f"vmlinux {path}: {error or 'it is no ELF file'}") from error
        if self.elf["e_machine"] != "EM_AARCH64" or self.elf.elfclass != 64:
            raise UsageError(f"vmlinux {path}: it is not for arm64")
        if not self.symbols:
            raise UsageError(
                f"vmlinux {path}: it has no symbols; give the one of the kernel build, not stripped"
            )

    @cached_property
    def symbols(self) -> dict[str, tuple[Symbol, ...]]:
        """All symbols by name; static functions of one name are several."""
        table = self._section(".symtab")
        names = self._section(".strtab")
        found: dict[str, list[Symbol]] = {}
        if table is None or names is None:
            return {}
        text = names.data()
        data = table.data()
        usable = len(data) - len(data) % _SYMBOL.size
        for name, info, _, section, value, size in _SYMBOL.iter_unpack(data[:usable]):
            if section == 0 or info & 0xF in _NAMELESS_TYPES:
                continue
            word = text[name : text.find(b"\0", name)].decode("ascii", "replace")
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
            return self.address(name.strip()) + (int(offset, 0) if plus else 0)
        except ValueError:
            raise UsageError(f"{expression!r} is not SYMBOL or SYMBOL+OFFSET") from None

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
        for section in self.elf.iter_sections():
            if (
                section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR
                and section["sh_type"] == "SHT_PROGBITS"
            ):
                yield Code(section["sh_addr"], section.data())

    def data(self, section: str) -> bytes:
        """The bytes of a section, none if it does not exist."""
        found = self._section(section)
        return b"" if found is None else bytes(found.data())

    def section_address(self, section: str) -> int:
        """The virtual address of a section, 0 if it does not exist."""
        found = self._section(section)
        return 0 if found is None else int(found["sh_addr"])

    def _section(self, name: str) -> Section | None:
        section = self.elf.get_section_by_name(name)
        return section if isinstance(section, Section) else None

    def require_image(self, image: Path) -> None:
        """Compare the code with that of an Image; UsageError when it is another build's.

        An Image is the kernel's memory from ``_text`` on, and nothing is relocated in code.
        """
        start = self.address("_text")
        try:
            with image.open("rb") as file:
                for code in self.code():
                    if code.address < start:
                        continue
                    for at in range(0, len(code.data), _COMPARED):
                        ours = code.data[at : at + _COMPARED]
                        file.seek(code.address - start + at)
                        if file.read(len(ours)) != ours:
                            raise UsageError(
                                f"vmlinux {self.path} does not belong to {image}: the code "
                                f"differs; give the two files of one build"
                            )
        except OSError as error:
            raise UsageError(f"{image}: {error.strerror}") from error
