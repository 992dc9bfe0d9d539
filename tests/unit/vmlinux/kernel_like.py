# SPDX-License-Identifier: GPL-2.0-or-later
"""Small ELF files that look like a kernel's vmlinux, made by the cross assembler."""

import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_model.arch.registers import SysReg
from qemu_model.machine.tools import cross_prefix

TEXT = 0x8000_0000
"""Where the linker puts ``_text``: the least address that an Image has bytes for."""
READ, WRITE = 0xD520_0000, 0xD500_0000
"""MRS and MSR without register and Rt."""

HEAD = """
    .text
    .globl _text
_text:
    nop
"""
ENTER = """
    .type __guest_enter, %function
__guest_enter:
    nop
    eret
    sb
    .size __guest_enter, . - __guest_enter
"""
OTHER_ERET = """
    .type ret_to_user, %function
ret_to_user:
    mov x0, #1
    eret
    .size ret_to_user, . - ret_to_user
"""
VECTOR = """
    .balign 2048
__kvm_hyp_vector:
    .space 2048
"""
KERNEL = HEAD + ENTER + OTHER_ERET + VECTOR
"""The least that a kernel with KVM at EL2 has."""


def word(base: int, register: SysReg | int, rt: int) -> str:
    """An MRS or MSR, as text for the assembler, which knows no HDBSS register."""
    return f"    .inst {base | int(register) | rt:#x}\n"


def run(*words: object) -> None:
    """Run one of the cross tools."""
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=60)


def tool(name: str) -> str:
    """The cross tool of that name; skips the test where it is not installed."""
    found = shutil.which(f"{cross_prefix()}{name}")
    if found is None:
        pytest.skip(f"{cross_prefix()}{name} is not installed: it makes the files of this test")
    return found


def assemble(directory: Path, source: str, *link: str, name: str = "vmlinux") -> Path:
    """Assemble and link a file at TEXT; returns the path of the ELF file."""
    text, made, linked = (directory / f"{name}{suffix}" for suffix in (".s", ".o", ""))
    text.write_text(source)
    run(tool("as"), "-march=armv8.5-a", "-o", made, text)
    run(tool("ld"), "-e", "0", "--no-warn-mismatch", f"-Ttext={TEXT:#x}", *link, "-o", linked, made)
    return linked


def vmlinux(directory: Path, source: str = KERNEL) -> Path:
    """The ELF file of a source."""
    return assemble(directory, source)


def image_of(elf: Path) -> Path:
    """The Image that belongs to a file: its memory from ``_text`` on."""
    image = elf.with_name("Image")
    run(tool("objcopy"), "-O", "binary", "-j", ".text", elf, image)
    return image
