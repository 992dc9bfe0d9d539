# SPDX-License-Identifier: GPL-2.0-or-later
"""Put an interceptor onto a machine that has just been started and stands still."""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from subprocess import PIPE, Popen

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.gdbstub.holding import Holding
from qemu_model.gdbstub.interceptor import Interceptor, KernelCode
from qemu_model.gdbstub.mi import Gdb, find_gdb, gdb_argv
from qemu_model.gdbstub.ram import RamFile
from qemu_model.machine.child import child
from qemu_model.machine.command import RAM_BASE, MachineSpec, RunFiles
from qemu_model.program import Program
from qemu_model.scenarios.holds import Step
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.sites import HINT_127, find_sites

_START_LIMIT = 20.0
"""Seconds until QEMU has opened its socket."""
_TEXT_OFFSET = struct.Struct("<8xQQ")
"""The Image's header: text_offset and image_size."""
_PF_X = 1
_BELOW_KERNEL = 0x20_0000
"""QEMU loads an Image with a small text_offset 2 MiB higher, above its own boot code."""


def load_address(image: Path) -> int:
    """The physical address at which QEMU puts ``_text`` of an Image."""
    try:
        with image.open("rb") as file:
            offset, size = _TEXT_OFFSET.unpack(file.read(_TEXT_OFFSET.size))
    except (OSError, struct.error) as error:
        raise UsageError(f"{image}: not an arm64 Image: {error}") from error
    if size == 0:
        return RAM_BASE + 0x8_0000
    return RAM_BASE + int(offset) + (_BELOW_KERNEL if offset < 0x1000 else 0)


def find_markers(agent: Path) -> tuple[int, ...]:
    """The addresses of the agent's marker instruction; UsageError if it has none.

    The agent is linked statically to fixed addresses, so they are what the PE will see.
    """
    found: list[int] = []
    try:
        with agent.open("rb") as file:
            elf = ELFFile(file)
            if elf["e_type"] == "ET_EXEC":
                for segment in elf.iter_segments("PT_LOAD"):
                    if segment["p_flags"] & _PF_X:
                        data = segment.data()
                        words = array("I")
                        words.frombytes(data[: len(data) & ~3])
                        start = segment["p_vaddr"]
                        found += [start + 4 * i for i, w in enumerate(words) if w == HINT_127]
    except (OSError, ELFError) as error:
        raise UsageError(f"the agent {agent}: {error}") from error
    if not found:
        raise UsageError(f"the agent {agent} has no marker instruction at a fixed address")
    return tuple(found)


@lru_cache(maxsize=4)
def kernel_code(vmlinux: Path, image: Path) -> KernelCode:
    """What the interceptor has to know of a kernel; UsageError if the files do not fit."""
    elf = Vmlinux(vmlinux)
    elf.require_image(image)
    sites = find_sites(elf)
    words: dict[int, int] = {}
    for code in elf.code():
        for address in (*sites.by_address, sites.retry_eret):
            at = address - code.address
            if 0 <= at <= len(code.data) - 4:
                (words[address],) = struct.unpack_from("<I", code.data, at)
    return KernelCode(
        sites, elf.address("_text"), load_address(image), words.get, elf.name_of, elf.place
    )


@dataclass(frozen=True)
class GdbInterception:
    """How a machine gets its interceptor (``machine.vm.Interception``).

    Without ``start`` it stays at its first instruction.
    """

    spec: MachineSpec
    holds: tuple[Step, ...] = ()
    program: Program | None = None
    """What the agent is going to do, for holds that wait for it."""
    start: bool = True

    @contextmanager
    def attach(self, files: RunFiles, qemu: Popen[bytes]) -> Iterator[Interceptor]:
        """Connect, set breakpoints, start the machine; the trace ends with the block."""
        spec = self.spec
        if spec.kernel.vmlinux is None:
            raise UsageError("the gdbstub interceptor needs the kernel's vmlinux: give --vmlinux")
        kernel = kernel_code(spec.kernel.vmlinux, spec.kernel.image)
        markers = find_markers(spec.agent)
        _await_socket(files, qemu)
        log = files.directory / "gdb.log"
        with ExitStack() as stack:
            process = stack.enter_context(
                child(gdb_argv(find_gdb()), stdin=PIPE, stdout=PIPE, cwd=files.directory)
            )
            gdb = Gdb(process)
            gdb.connect(files.gdb_socket.name)
            # Not before: the socket is there first, the RAM when the stub answers.
            ram = stack.enter_context(RamFile(files.ram, RAM_BASE))
            interceptor = Interceptor(
                gdb, kernel, markers, ram, files.trace, spec.smp, self._holding(kernel)
            )
            try:
                interceptor.start()
                yield interceptor
            finally:
                interceptor.close()
                if interceptor.holding is not None:
                    taken = interceptor.holding.taken
                    files.holds.write_text("".join(f"{step}\n" for step in taken))
                log.write_text("".join(f"{line}\n" for line in gdb.said()))

    def _holding(self, kernel: KernelCode) -> Holding | None:
        if not self.holds:
            return None
        program = self.program or Program()
        return Holding(self.holds, program, self.spec.smp, kernel.place, kernel.name_of)


def _await_socket(files: RunFiles, qemu: Popen[bytes]) -> None:
    end = time.monotonic() + _START_LIMIT
    while not files.gdb_socket.exists():
        if qemu.poll() is not None:
            raise InfrastructureError(f"QEMU ended at once, see {files.qemu}")
        if time.monotonic() > end:
            raise InfrastructureError(f"QEMU did not open its gdbstub within {_START_LIMIT:.0f} s")
        time.sleep(0.01)
