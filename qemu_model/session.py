# SPDX-License-Identifier: GPL-2.0-or-later
"""What a command needs before it can run: cache, QEMU, images, a kernel's interface."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from qemu_model import bugs
from qemu_model.errors import InfrastructureError, Unsupported, UsageError
from qemu_model.gdbstub.attach import require_gdb, require_vmlinux
from qemu_model.gdbstub.mi import ADVICE as GDB_ADVICE
from qemu_model.gdbstub.mi import find_gdb
from qemu_model.machine import images
from qemu_model.machine.cache import Cache, default_root
from qemu_model.machine.command import KernelImage, Mode
from qemu_model.machine.flushwatch import FlushPlan
from qemu_model.machine.kernelmap import kernel_map
from qemu_model.machine.progress import Progress
from qemu_model.machine.qemu import (
    NoPluginQemu,
    Qemu,
    find_any_qemu,
    find_qemu,
    given_qemu,
    installed_any_qemu,
)
from qemu_model.machine.vm import Limits
from qemu_model.model.choices import choose
from qemu_model.model.injection import Injector
from qemu_model.model.injection import parse as parse_injection
from qemu_model.probe import probe_uapi, require_boots
from qemu_model.runner import Bench
from qemu_model.scenarios.scenario import Uapi
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.kernelmap import returns

_PATIENT = Limits(boot=600.0, stall=300.0, total=3600.0)
"""For kernels of which we do not know how slow they are."""


@dataclass(frozen=True)
class Choice:
    """What the user asked for."""

    kernel: Path | None = None
    vmlinux: Path | None = None
    linux: Path | None = None
    debug: bool = False
    uapi: str | None = None
    qemu: Path | None = None
    mode: Mode = Mode.PARALLEL
    seed: int = 1
    keep: Path | None = None
    small: bool = False
    flush_symbol: str | None = None
    choices: str = ""
    """As on the command line; ``random`` goes by the seed."""
    inject: tuple[str, ...] = ()
    """As on the command line."""
    bug: str | None = None
    """A seeded bug of our kernel, ``bugs.NONE`` for that kernel without any."""

    @property
    def foreign(self) -> bool:
        """Whether it is a kernel that the user has built."""
        return self.kernel is not None or self.linux is not None

    @property
    def options(self) -> str:
        """The options that repeat this choice of kernel, interface and QEMU."""
        words: list[str] = []
        for option, path in (
            ("--kernel", self.kernel),
            ("--vmlinux", self.vmlinux),
            ("--linux", self.linux),
            ("--qemu", self.qemu),
        ):
            if path is not None:
                words += [option, str(path)]
        if self.debug:
            words.append("--debug")
        if self.bug is not None:
            words += ["--bug", self.bug]
        if self.uapi is not None:
            words += ["--uapi", self.uapi]
        if self.flush_symbol is not None:
            words += ["--flush-symbol", self.flush_symbol]
        if self.choices:
            words += ["--choices", self.choices]
        for injection in self.inject:
            words += ["--inject", injection]
        return f" {shlex.join(words)}" if words else ""


def cache() -> Cache:
    """The user's cache."""
    return Cache(default_root())


def build(part: str, progress: Progress) -> Iterator[tuple[str, Path]]:
    """Build ``part`` (or ``all``: what the default runs need); yields names and paths."""
    store = cache()
    mode = Mode.PARALLEL
    if part == "all":
        qemu, mode = _qemu(Choice(), store, progress)
        yield "qemu", qemu.program
    elif part == "qemu":
        yield "qemu", find_qemu(store, progress).program
    if part == "plugin" or (part == "all" and mode is not Mode.GDB):
        yield "plugin", images.plugin(store, progress)
    if part in ("agent", "all"):
        yield "agent", images.agent(store, progress)
    if part in ("kernel", "all"):
        yield "kernel", images.kernel(store, progress, "default").image
    if part == "debug-kernel":
        yield "debug-kernel", images.kernel(store, progress, "debug").image
    if part == "bugs-kernel":
        yield "bugs-kernel", images.kernel(store, progress, "bugs").image


def _kernel(choice: Choice, store: Cache, progress: Progress) -> KernelImage:
    given = (choice.kernel, choice.linux, choice.bug)
    if sum(one is not None for one in given) + choice.debug > 1:
        raise UsageError("--kernel, --linux, --debug and --bug exclude each other")
    if choice.vmlinux is not None and choice.kernel is None:
        raise UsageError("--vmlinux goes with --kernel")
    if choice.kernel is not None:
        return images.foreign_kernel(choice.kernel, choice.vmlinux)
    if choice.linux is not None:
        return images.kernel_from_tree(choice.linux)
    if choice.bug is not None:
        bug = bugs.require(choice.bug)
        kernel = images.kernel(store, progress, "bugs")
        return replace(
            kernel,
            description=f"{kernel.description}, hdbss.bug={bug}",
            cmdline=(*kernel.cmdline, f"hdbss.bug={bug}"),
        )
    return images.kernel(store, progress, "debug" if choice.debug else "default")


def prepare(choice: Choice, progress: Progress, boots: bool = True) -> Bench:
    """Find or make everything, and find out how the kernel's HDBSS is driven.

    Without ``boots`` an unknown kernel is not asked, and taken for one without HDBSS.
    """
    store = cache()
    choices = choose(choice.choices, choice.seed)
    injections = tuple(map(parse_injection, choice.inject))
    Injector(injections)  # not too many
    if choice.qemu is not None:
        given_qemu(choice.qemu, plugins=choice.mode is not Mode.GDB)  # before minutes of building
    kernel = _kernel(choice, store, progress)
    if choice.mode is Mode.GDB:
        require_vmlinux(kernel)
    qemu, mode = _qemu(choice, store, progress, kernel)
    agent = images.agent(store, progress)
    if mode is Mode.GDB and boots:
        require_gdb(kernel, agent)
    flushes, unwatched = _flushes(choice, kernel, store, progress)
    bench = Bench(
        qemu=qemu,
        kernel=kernel,
        agent=agent,
        plugin=None if mode is Mode.GDB else images.plugin(store, progress),
        uapi=Uapi("none"),
        mode=mode,
        seed=choice.seed,
        command=choice.options,
        limits=_PATIENT if choice.foreign or choice.debug else Limits(),
        runs=store.root / "runs",
        keep=choice.keep,
        flushes=flushes,
        unwatched=unwatched,
        small=choice.small or mode is Mode.GDB,  # each entry takes milliseconds there
        choices=choices,
        injections=injections,
    )
    return bench.driven_by(_uapi(choice, bench, progress, boots))


def _flushes(
    choice: Choice, kernel: KernelImage, store: Cache, progress: Progress
) -> tuple[FlushPlan | None, str]:
    """How to watch the kernel's dirty bitmaps, or why they cannot be watched.

    The user's own wish, --flush-symbol, is not given up silently: UsageError.
    InfrastructureError if vmlinux and Image are of different builds.
    """
    symbol = choice.flush_symbol
    if kernel.vmlinux is None:
        if symbol is not None:
            raise UsageError("--flush-symbol needs the kernel's symbols: give --vmlinux")
        return None, "no vmlinux was given"
    at = () if symbol is None else returns(Vmlinux(kernel.vmlinux), symbol)
    try:
        known = kernel_map(kernel.vmlinux, kernel.image, store, progress)
    except Unsupported as error:
        if symbol is not None:
            raise UsageError(f"--flush-symbol {symbol}: {error}") from error
        return None, str(error)
    return FlushPlan(known, symbol, at), ""


def _qemu(
    choice: Choice, store: Cache, progress: Progress, kernel: KernelImage | None = None
) -> tuple[Qemu, Mode]:
    """The QEMU for the mode, or the mode for the QEMU."""
    if choice.mode is Mode.GDB:
        return find_any_qemu(store, progress, choice.qemu), choice.mode
    try:
        return find_qemu(store, progress, choice.qemu), choice.mode
    except NoPluginQemu as error:
        hint = f"{error}; or, for --mode gdb, which is slower"
        try:
            find_gdb()
            qemu = installed_any_qemu()
        except InfrastructureError:
            raise InfrastructureError(f"{hint}: {GDB_ADVICE} qemu-system-arm") from error
        if kernel is not None and kernel.vmlinux is None:
            raise InfrastructureError(f"{hint}: give --vmlinux") from error
        progress.line(f"{error}; going on with --mode gdb on QEMU {qemu.version}, which is slower")
        return qemu, Mode.GDB


def _told(choice: Choice, kernel: KernelImage) -> Uapi | None:
    """What the user or the kernel's headers say of its HDBSS."""
    style, _, number = (choice.uapi or "").partition(":")
    if style in ("auto", "none"):
        return Uapi(style)
    if number:
        return Uapi("cap", int(number))
    return None if kernel.cap is None else Uapi("cap", kernel.cap)


def _uapi(choice: Choice, bench: Bench, progress: Progress, boots: bool) -> Uapi:
    known = _told(choice, bench.kernel)
    if known is not None:
        if choice.foreign and boots:
            # A kernel that hangs is told once, and not after hours of the whole catalogue.
            require_boots(bench, progress)
        return known
    if not boots:
        progress.line("how this kernel's HDBSS is driven would be found out by booting it once")
        return Uapi("none")
    found = probe_uapi(bench, progress)
    if choice.uapi == "cap" and found.style != "cap":
        raise UsageError("this kernel offers no capability that behaves like HDBSS; see --uapi")
    progress.line(f"the kernel's HDBSS is driven by --uapi {found}")
    return found
