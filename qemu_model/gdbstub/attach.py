# SPDX-License-Identifier: GPL-2.0-or-later
"""Put an interceptor onto a machine that has just been started and stands still."""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from subprocess import PIPE, Popen

from elftools.elf.elffile import ELFFile

from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.gdbstub.holding import Holding
from qemu_model.gdbstub.interceptor import Interceptor
from qemu_model.gdbstub.kernelcode import KernelCode
from qemu_model.gdbstub.mi import Gdb, find_gdb, gdb_argv
from qemu_model.gdbstub.ram import RamFile
from qemu_model.machine.child import child
from qemu_model.machine.command import RAM_BASE, KernelImage, MachineSpec, RunFiles
from qemu_model.machine.kernelwatch import KernelWatch, kernel_watch
from qemu_model.model.choices import BEST, Choices
from qemu_model.model.injection import Injection, Injector
from qemu_model.program import Program
from qemu_model.scenarios.holds import Step
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.sites import CONFORMANCE, HINT_127, Sites, find_sites

_START_LIMIT = 20.0
"""Seconds until QEMU has opened its socket."""
_HEADER = struct.Struct("<8xQQ32x4s")
"""The Image's header: text_offset, image_size, magic."""
_PF_X = 1
_BOOT_CODE, _ABOVE_IT = 0x1000, 0x20_0000
"""QEMU loads an Image with a smaller text_offset 2 MiB higher, above its own boot code."""
_OLD_OFFSET = 0x8_0000
"""Where an Image without image_size goes (kernels before 3.17)."""


def load_address(image: Path) -> int:
    """The physical address at which QEMU puts ``_text`` of an Image."""
    try:
        with image.open("rb") as file:
            offset, size, magic = _HEADER.unpack(file.read(_HEADER.size))
    except OSError as error:
        raise UsageError(f"cannot read {image}: {error.strerror}") from error
    except struct.error:
        magic = b""
    if magic != b"ARM\x64":
        raise UsageError(f"{image} is not an arm64 kernel Image")
    if size == 0:
        return RAM_BASE + _OLD_OFFSET
    return RAM_BASE + int(offset) + (_ABOVE_IT if offset < _BOOT_CODE else 0)


def find_markers(agent: Path) -> tuple[int, ...]:
    """The addresses of the agent's marker instruction; InfrastructureError if it has none.

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
    except Exception as error:
        # pyelftools raises whatever it stumbles over.
        why = str(error) or type(error).__name__
        raise InfrastructureError(f"the agent {agent} cannot be read: {why}") from error
    if not found:
        raise InfrastructureError(f"the agent {agent} has no marker at a fixed address")
    return tuple(found)


@lru_cache(maxsize=4)
def kernel_code(vmlinux: Path, image: Path) -> KernelCode:
    """What the interceptor has to know of a kernel.

    Raises UsageError for a vmlinux that cannot be used, InfrastructureError if it and the
    Image are not of one build.
    """
    elf = Vmlinux(vmlinux)
    elf.require_image(image)
    sites = find_sites(elf)
    return KernelCode(
        sites, elf.address("_text"), load_address(image), _words(elf, sites), elf.name_of, elf.place
    )


def _words(elf: Vmlinux, sites: Sites) -> Callable[[int], int | None]:
    """The instructions that an ELF file has at the sites."""
    words: dict[int, int] = {}
    for code in elf.code():
        for address in (*sites.by_address, sites.retry_eret):
            at = address - code.address
            if 0 <= at <= len(code.data) - 4:
                (words[address],) = struct.unpack_from("<I", code.data, at)
    return words.get


def require_gdb(kernel: KernelImage, agent: Path) -> None:
    """Check all that a run will need, so that trouble is told once and before it.

    Raises UsageError if vmlinux is missing or unusable, else InfrastructureError.
    """
    vmlinux = require_vmlinux(kernel)
    find_gdb()
    kernel_code(vmlinux, kernel.image)
    find_markers(agent)


def require_vmlinux(kernel: KernelImage) -> Path:
    """The kernel's vmlinux; UsageError if none was given."""
    if kernel.vmlinux is None:
        raise UsageError(
            f"--mode gdb needs the vmlinux of {kernel.image}, with symbols: give --vmlinux"
        )
    return kernel.vmlinux


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
    choices: Choices = BEST
    injections: tuple[Injection, ...] = ()

    @contextmanager
    def attach(self, files: RunFiles, qemu: Popen[bytes]) -> Iterator[Interceptor]:
        """Connect, set breakpoints, start the machine; the trace ends with the block."""
        spec = self.spec
        kernel = kernel_code(require_vmlinux(spec.kernel), spec.kernel.image)
        markers = find_markers(spec.agent)
        with connected(files, qemu) as (gdb, ram), ExitStack() as stack:
            holding = self._holding(kernel)
            watch: KernelWatch | None = None
            returns: tuple[int, ...] = ()
            if spec.flushes is not None:
                watch = kernel_watch(spec.flushes, files)
                returns = spec.flushes.returns
                stack.callback(watch.close)
            interceptor = Interceptor(
                gdb, kernel, markers, ram, files.trace, spec.smp, holding, watch, returns,
                self.choices, Injector(self.injections),
            )  # fmt: skip
            stack.callback(interceptor.close)
            if holding is not None:
                stack.callback(_write, files.holds, lambda: holding.taken)
            if self.start:
                interceptor.start()
            yield interceptor

    def require_holds(self) -> None:
        """UsageError for holds that cannot be, before anything runs."""
        kernel = kernel_code(require_vmlinux(self.spec.kernel), self.spec.kernel.image)
        holding = self._holding(kernel)
        if holding is not None:
            holding.require_apart(kernel.sites.by_address.__contains__)

    def _holding(self, kernel: KernelCode) -> Holding | None:
        if not self.holds:
            return None
        program = self.program or Program()
        return Holding(self.holds, program, self.spec.smp, kernel.place, kernel.name_of)


@dataclass(frozen=True)
class BareInterception:
    """How a machine that runs our own program at EL2 gets its interceptor.

    The program is linked to the addresses at which it runs, and its MMU is off.
    """

    program: Path
    smp: int
    choices: Choices = BEST
    injections: tuple[Injection, ...] = ()

    @contextmanager
    def attach(self, files: RunFiles, qemu: Popen[bytes]) -> Iterator[Interceptor]:
        """Connect, set breakpoints, start the machine; the trace ends with the block."""
        elf = Vmlinux(self.program)
        sites = find_sites(elf, CONFORMANCE)
        code = KernelCode(sites, 0, 0, _words(elf, sites), elf.name_of, elf.place)
        with connected(files, qemu) as (gdb, ram), ExitStack() as stack:
            interceptor = Interceptor(
                gdb, code, (), ram, files.trace, self.smp,
                choices=self.choices, injector=Injector(self.injections),
            )  # fmt: skip
            stack.callback(interceptor.close)
            interceptor.start()
            yield interceptor


@contextmanager
def connected(files: RunFiles, qemu: Popen[bytes]) -> Iterator[tuple[Gdb, RamFile]]:
    """A gdb that has stopped the machine at its first instruction, and the machine's RAM."""
    _await_socket(files, qemu)
    argv = gdb_argv(find_gdb())
    with (
        child(argv, stdin=PIPE, stdout=PIPE, cwd=files.directory) as process,
        ExitStack() as stack,
    ):
        gdb = Gdb(process)
        stack.callback(_write, files.gdb_log, gdb.said)
        gdb.connect(files.gdb_socket.name)
        # Not before: the socket is there first, the RAM when the stub answers.
        yield gdb, stack.enter_context(RamFile(files.ram, RAM_BASE))


def _write(path: Path, lines: Callable[[], Iterable[str]]) -> None:
    with suppress(OSError):  # only for those who look for the reason of something
        path.write_text("".join(f"{line}\n" for line in lines()), "utf-8")


def _await_socket(files: RunFiles, qemu: Popen[bytes]) -> None:
    end = time.monotonic() + _START_LIMIT
    while not files.gdb_socket.exists():
        if qemu.poll() is not None:
            raise InfrastructureError(f"QEMU ended at once, see {files.qemu}")
        if time.monotonic() > end:
            raise InfrastructureError(f"QEMU did not open its gdbstub within {_START_LIMIT:.0f} s")
        time.sleep(0.01)
