# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's RAM file as the memory of the reference model.

Only used while the machine stands still, so a read, a comparison and a write need no
atomicity.  What lies outside the file does not exist: no address of the kernel's can
lead anywhere else.  Read and written by calls, not through a mapping: a full disk is an
error then, and not the end of this process by SIGBUS.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Self

from qemu_model.arch.registers import ProdFsc
from qemu_model.errors import InfrastructureError

_WORD = struct.Struct("<Q")
_INSTRUCTION = struct.Struct("<I")


class RamFile:
    """RAM from physical address ``base`` on, as long as its file (``model.pe.Memory``).

    Raises InfrastructureError if the file cannot be opened, read or written.
    """

    def __init__(self, path: Path, base: int) -> None:
        self._path = path
        self.base = base
        try:
            self._file = path.open("r+b", buffering=0)
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._trouble("open", error) from error

    def read64(self, pa: int) -> int | None:
        """The word at ``pa``, None outside RAM."""
        return self._read(pa, _WORD)

    def read32(self, pa: int) -> int | None:
        """The instruction at ``pa``, None outside RAM."""
        return self._read(pa, _INSTRUCTION)

    def write64(self, pa: int, value: int) -> ProdFsc:
        """Write a word; outside RAM it is an External abort."""
        offset = self._offset(pa, _WORD.size)
        if offset is None:
            return ProdFsc.EXTERNAL_ABORT
        try:
            os.pwrite(self._file.fileno(), _WORD.pack(value), offset)
        except OSError as error:
            raise self._trouble("write", error) from error
        return ProdFsc.NONE

    def compare_and_swap64(self, pa: int, expected: int, new: int) -> int | None:
        """Write ``new`` if the word is ``expected``; the word found, None outside RAM."""
        found = self.read64(pa)
        if found == expected:
            self.write64(pa, new)
        return found

    def _offset(self, pa: int, size: int) -> int | None:
        offset = pa - self.base
        return offset if 0 <= offset <= self.size - size and pa % size == 0 else None

    def _read(self, pa: int, kind: struct.Struct) -> int | None:
        offset = self._offset(pa, kind.size)
        if offset is None:
            return None
        try:
            data = os.pread(self._file.fileno(), kind.size, offset)
        except OSError as error:
            raise self._trouble("read", error) from error
        # A file that has shrunk: there is no such memory any more.
        return int(kind.unpack(data)[0]) if len(data) == kind.size else None

    def _trouble(self, what: str, error: OSError) -> InfrastructureError:
        return InfrastructureError(
            f"cannot {what} the machine's RAM {self._path}: {error.strerror}"
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
