# SPDX-License-Identifier: GPL-2.0-or-later
"""Before the machine starts: where its kernel will be, where the agent marks, what is missing."""

import struct
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.gdbstub import attach
from qemu_model.gdbstub.attach import (
    GdbInterception,
    find_markers,
    kernel_code,
    load_address,
    require_gdb,
    require_vmlinux,
)
from qemu_model.machine.command import KernelImage, MachineSpec, RunFiles
from qemu_model.vmlinux.sites import ERET
from tests.unit.vmlinux.kernel_like import (
    ENTER,
    HEAD,
    KERNEL,
    OTHER_ERET,
    TEXT,
    VECTOR,
    assemble,
    image_of,
    run,
    tool,
    vmlinux,
)

MAGIC = b"ARM\x64"
MARKER = 0xD503_2FFF
AGENT = f"""
    .text
    nop
    .inst {MARKER:#x}
    nop
    .inst {MARKER:#x}
    .data
    .inst {MARKER:#x}
"""
HEADER = """
    .text
    .globl _text
_text:
    b .
    .inst 0
    .quad 0
    .quad 0x100000
    .quad 0, 0, 0, 0
    .ascii "ARM\\x64"
    .inst 0
"""
BOOTABLE = KERNEL.replace(HEAD, HEADER)


def head(offset: int, size: int, magic: bytes = MAGIC) -> bytes:
    """The header of an Image (Documentation/arch/arm64/booting.rst)."""
    return struct.pack("<IIQQQQQQ4sI", 0x1400_0000, 0, offset, size, 2, 0, 0, 0, magic, 0)


@pytest.mark.parametrize(
    ("offset", "size", "address"),
    [
        (0, 0x200_0000, 0x4020_0000),  # of today: no offset, so above QEMU's boot code
        (0xFFF, 1, 0x4020_0FFF),
        (0x1000, 1, 0x4000_1000),
        (0x8_0000, 0x100_0000, 0x4008_0000),
        (0x8_0000, 0, 0x4008_0000),
        (0x20_0000, 0, 0x4008_0000),  # before 3.17 the offset is not to be believed
        (1 << 63, 1, 0x4000_0000 + (1 << 63)),
    ],
)
def test_where_qemu_puts_a_kernel(tmp_path: Path, offset: int, size: int, address: int) -> None:
    image = tmp_path / "Image"
    image.write_bytes(head(offset, size))
    assert load_address(image) == address


@pytest.mark.parametrize("data", [b"", head(0, 1)[:59], head(0, 1, b"ARM\x65"), b"\x7fELF" * 20])
def test_what_is_no_image(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "Image").write_bytes(data)
    with pytest.raises(UsageError, match="is not an arm64 kernel Image"):
        load_address(tmp_path / "Image")


@pytest.mark.parametrize("name", ["none", "."])
def test_an_image_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_address(tmp_path / name)


def test_markers_are_found_in_code_alone(tmp_path: Path) -> None:
    agent = assemble(tmp_path, AGENT, name="agent")
    assert find_markers(agent) == (TEXT + 4, TEXT + 12)


@pytest.mark.parametrize("what", ["none", "anywhere"])
def test_an_agent_without_markers_at_a_fixed_address(tmp_path: Path, what: str) -> None:
    source = AGENT.replace(f".inst {MARKER:#x}", "nop") if what == "none" else AGENT
    agent = assemble(tmp_path, source, *([] if what == "none" else ["-pie"]), name="agent")
    with pytest.raises(InfrastructureError, match="has no marker at a fixed address"):
        find_markers(agent)


@pytest.mark.parametrize("data", [None, b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\2\1\1"])
def test_an_agent_that_is_no_program(tmp_path: Path, data: bytes | None) -> None:
    agent = tmp_path / "agent"
    if data is not None:
        agent.write_bytes(data)
    with pytest.raises(InfrastructureError, match=r"the agent .* cannot be read: ."):
        find_markers(agent)


def test_what_is_known_of_a_kernel(tmp_path: Path) -> None:
    elf = vmlinux(tmp_path, BOOTABLE)
    kernel = kernel_code(elf, image_of(elf))
    assert (kernel.text, kernel.load) == (TEXT, 0x4020_0000)
    assert kernel.physical(TEXT + 0x1234) == 0x4020_1234
    assert kernel.words(kernel.sites.retry_eret) == ERET
    assert kernel.words(TEXT + 1 << 20) is None
    assert kernel.place("__guest_enter") in range(TEXT, TEXT + 0x1000)


def files(directory: Path) -> tuple[KernelImage, Path]:
    """A kernel and an agent with which nothing is wrong."""
    elf = vmlinux(directory, BOOTABLE)
    agent = assemble(directory, AGENT, name="agent")
    return KernelImage(image_of(elf), elf, None, "made up"), agent


@pytest.fixture
def gdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gdb is installed."""
    monkeypatch.setattr(attach, "find_gdb", lambda: "gdb-multiarch")


@pytest.mark.usefixtures("gdb")
def test_everything_is_there(tmp_path: Path) -> None:
    require_gdb(*files(tmp_path))


def test_gdb_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, agent = files(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfrastructureError, match="apt-get install gdb-multiarch"):
        require_gdb(kernel, agent)


@pytest.mark.usefixtures("gdb")
def test_a_kernel_without_vmlinux(tmp_path: Path) -> None:
    kernel, agent = files(tmp_path)
    with pytest.raises(UsageError, match=r"--mode gdb needs the vmlinux of .*Image.*--vmlinux"):
        require_gdb(KernelImage(kernel.image, None, None, ""), agent)
    assert require_vmlinux(kernel) == kernel.vmlinux


@pytest.mark.usefixtures("gdb")
def test_a_vmlinux_without_symbols(tmp_path: Path) -> None:
    kernel, agent = files(tmp_path)
    run(tool("strip"), kernel.vmlinux)
    with pytest.raises(UsageError, match="it has no symbols; give the one of the kernel build"):
        require_gdb(kernel, agent)


@pytest.mark.usefixtures("gdb")
def test_a_vmlinux_of_another_build(tmp_path: Path) -> None:
    kernel, agent = files(tmp_path)
    other = HEADER + ENTER + OTHER_ERET.replace("#1", "#2") + VECTOR
    assert kernel.vmlinux is not None
    kernel.vmlinux.write_bytes(assemble(tmp_path, other, name="other").read_bytes())
    with pytest.raises(InfrastructureError, match=r"does not match the kernel .*: the code"):
        require_gdb(kernel, agent)


@pytest.mark.usefixtures("gdb")
def test_an_agent_without_markers(tmp_path: Path) -> None:
    kernel, _ = files(tmp_path)
    assert kernel.vmlinux is not None
    with pytest.raises(InfrastructureError, match="has no marker"):
        require_gdb(kernel, kernel.vmlinux)


@pytest.mark.usefixtures("gdb")
@pytest.mark.parametrize("program", ["false", "sleep"])
def test_a_qemu_that_opens_no_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(attach, "_START_LIMIT", 0.2 if program == "sleep" else 60.0)
    kernel, agent = files(tmp_path)
    spec = MachineSpec(kernel, agent, None, gdbstub=True)
    words = {"false": "QEMU ended at once", "sleep": "did not open its gdbstub within 0 s"}
    with Popen([program, "60"], stdout=PIPE) as qemu:
        try:
            with (
                pytest.raises(InfrastructureError, match=words[program]),
                GdbInterception(spec).attach(RunFiles(tmp_path / "run"), qemu),
            ):
                pass
        finally:
            qemu.kill()
