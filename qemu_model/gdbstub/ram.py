# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's RAM file as the memory of the reference model.

Only used while the machine stands still, so a read, a comparison and a write need no
atomicity.  What lies outside the file does not exist: no address of the kernel's can
lead anywhere else.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Self

from qemu_model.arch.registers import ProdFsc
from qemu_model.errors import InfrastructureError

_WORD = struct.Struct("<Q")
_INSTRUCTION = struct.Struct("<I")


class RamFile:
    """``size`` bytes of RAM from physical address ``base`` on (``model.pe.Memory``).

    Raises InfrastructureError if the file cannot be mapped.
    """

    def __init__(self, path: Path, base: int) -> None:
        try:
            with path.open("r+b") as file:
                self._map = mmap.mmap(file.fileno(), 0)
        except (OSError, ValueError) as error:
            raise InfrastructureError(f"cannot map the machine's RAM {path}: {error}") from error
        self.base = base
        self.size = len(self._map)

    def _offset(self, pa: int, size: int) -> int | None:
        offset = pa - self.base
        return offset if 0 <= offset <= self.size - size and pa % size == 0 else None

    def read64(self, pa: int) -> int | None:
        """The word at ``pa``, None outside RAM."""
        offset = self._offset(pa, 8)
        return None if offset is None else int(_WORD.unpack_from(self._map, offset)[0])

    def read32(self, pa: int) -> int | None:
        """The instruction at ``pa``, None outside RAM."""
        offset = self._offset(pa, 4)
        return None if offset is None else int(_INSTRUCTION.unpack_from(self._map, offset)[0])

    def write64(self, pa: int, value: int) -> ProdFsc:
        """Write a word; outside RAM it is an External abort."""
        offset = self._offset(pa, 8)
        if offset is None:
            return ProdFsc.EXTERNAL_ABORT
        _WORD.pack_into(self._map, offset, value)
        return ProdFsc.NONE

    def compare_and_swap64(self, pa: int, expected: int, new: int) -> int | None:
        """Write ``new`` if the word is ``expected``; the word found, None outside RAM."""
        offset = self._offset(pa, 8)
        if offset is None:
            return None
        found = int(_WORD.unpack_from(self._map, offset)[0])
        if found == expected:
            _WORD.pack_into(self._map, offset, new)
        return found

    def close(self) -> None:
        """Give the mapping back."""
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
