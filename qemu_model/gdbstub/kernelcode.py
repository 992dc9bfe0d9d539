# SPDX-License-Identifier: GPL-2.0-or-later
"""The code of the kernel that gdb debugs, as vmlinux has it and as it lies in RAM."""

from collections.abc import Callable
from dataclasses import dataclass

from qemu_model.vmlinux.sites import Sites


@dataclass(frozen=True)
class KernelCode:
    """Where the kernel is: its sites, and how to find an address of it in RAM."""

    sites: Sites
    text: int
    """Virtual address of ``_text``."""
    load: int
    """Physical address of ``_text``."""
    words: Callable[[int], int | None]
    """The instruction that vmlinux has at a virtual address."""
    name_of: Callable[[int], str] = hex
    """Symbol and offset of an address."""
    place: Callable[[str], int] = int
    """The address of SYMBOL or SYMBOL+OFFSET; UsageError if there is none."""

    def physical(self, address: int) -> int:
        """The physical address of code."""
        return address - self.text + self.load
