# SPDX-License-Identifier: GPL-2.0-or-later
"""Instructions in words: capstone's, and our own names for what it does not know.  Pure."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from capstone import CS_ARCH_ARM64, CS_MODE_ARM, Cs

from qemu_model.arch.registers import SysReg
from qemu_model.vmlinux.sites import HINT_127, Role, decode

_UNNAMED = (SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2)
"""Registers of which capstone has only the encoding."""


def instruction(word: int, address: int) -> str:
    """One instruction; a word that is none is shown as ``.inst``."""
    if word == HINT_127:
        return "hint #127 // the agent's marker"
    site = decode(word, address)
    if site is not None and site.register in _UNNAMED:
        name = SysReg(site.register).name
        source = "xzr" if site.rt == 31 else f"x{site.rt}"
        return f"mrs {source}, {name}" if site.role is Role.MRS else f"msr {name}, {source}"
    for found in Cs(CS_ARCH_ARM64, CS_MODE_ARM).disasm(struct.pack("<I", word), address):
        return f"{found.mnemonic} {found.op_str}".rstrip()
    return f".inst {word:#010x}"


def listing(
    address: int,
    data: bytes,
    name: Callable[[int], str],
    notes: Callable[[int], str] = lambda address: "",
) -> Iterator[str]:
    """A line for each whole instruction; ``notes`` says more about an address."""
    for at in range(0, len(data) & ~3, 4):
        (word,) = struct.unpack_from("<I", data, at)
        here = address + at
        note = notes(here)
        text = f"  {here:#x} <{name(here)}>: {instruction(word, here)}"
        yield f"{text} // {note}" if note else text
