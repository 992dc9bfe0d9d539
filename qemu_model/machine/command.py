# SPDX-License-Identifier: GPL-2.0-or-later
"""From a machine's description to QEMU's command line and the kernel's.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from qemu_model.errors import UsageError
from qemu_model.machine.flushwatch import FlushPlan

#: Where the virt machine's RAM starts (physical address).
RAM_BASE = 0x4000_0000
#: GICv3 and our agent's limit.
SMP_MAX = 8
#: COMMAND_LINE_SIZE of arm64.
CMDLINE_MAX = 2048

#: The machine that starts a kernel at EL2, without randomness, its RAM in backend m0.
MACHINE = "virt,virtualization=on,gic-version=3,dtb-randomness=off,memory-backend=m0"

#: MiB for translated code in deterministic mode.  When QEMU's table of translated blocks
#: grows, at some 20000 of them, its RCU thread kicks the PE that runs at that moment, and
#: the next one's turn comes earlier.  The host decides when; what fits here never gets there.
TB_SIZE = 5

#: All four denials work with the plugin: it opens its files before QEMU closes the door.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Mode(StrEnum):
    """How the emulated PEs run."""

    PARALLEL = "parallel"
    """a host thread per PE: real concurrency"""
    DETERMINISTIC = "deterministic"
    """round-robin and counted instructions: the same seed gives the same run"""
    GDB = "gdb"
    """no plugin: the gdbstub intercepts, and the reference model is the PE"""


@dataclass(frozen=True)
class KernelImage:
    """A kernel under test.

    ``cap`` is the number of KVM_CAP_ARM_HW_DIRTY_STATE_TRACK in its uapi header (None:
    unknown, or it has none); ``cmdline`` holds what this kernel needs to be told.
    """

    image: Path
    vmlinux: Path | None
    cap: int | None
    description: str
    cmdline: tuple[str, ...] = ()


@dataclass(frozen=True)
class MachineSpec:
    """A machine to be run.

    ``flushes`` says how to watch the kernel's dirty bitmaps, None not to.
    ``gdbstub``: it waits at its first instruction for a debugger on ``RunFiles.gdb_socket``.
    ``memory`` in MiB; ``seed`` goes to QEMU's random numbers; ``cmdline`` is added to
    the kernel's.  Without ``plugin`` the PEs have no FEAT_HDBSS.  ``trace_limit`` in
    records, None for the plugin's own; ``plugin_options`` are handed on as they are.
    """

    kernel: KernelImage
    agent: Path
    plugin: Path | None
    mode: Mode = Mode.PARALLEL
    smp: int = 1
    memory: int = 512
    seed: int = 1
    cmdline: tuple[str, ...] = ()
    trace: bool = True
    trace_limit: int | None = None
    plugin_options: tuple[str, ...] = ()
    gdbstub: bool = False
    flushes: FlushPlan | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.smp <= SMP_MAX:
            raise UsageError(f"a machine has 1 to {SMP_MAX} CPUs, not {self.smp}")
        if not 128 <= self.memory <= 64 * 1024:
            raise UsageError(f"a machine has 128 MiB to 64 GiB of memory, not {self.memory} MiB")
        if not 0 <= self.seed < 1 << 64:
            raise UsageError(f"the seed {self.seed} does not fit in 64 bits")
        if self.trace_limit is not None and self.trace_limit < 1:
            raise UsageError(f"the trace limit {self.trace_limit} is not positive")


@dataclass(frozen=True)
class RunFiles:
    """The files of a run directory."""

    directory: Path

    @property
    def ram(self) -> Path:
        """The machine's RAM, shared with the plugin and with us; gone after the run."""
        return self.directory / "ram"

    @property
    def initramfs(self) -> Path:
        """Agent and program for the kernel; removed after the run."""
        return self.directory / "initramfs"

    @property
    def program(self) -> Path:
        """The agent's program."""
        return self.directory / "program.txt"

    @property
    def console(self) -> Path:
        """All that the kernel printed."""
        return self.directory / "console.log"

    @property
    def agent(self) -> Path:
        """The raw bytes of the agent's channel."""
        return self.directory / "agent.log"

    @property
    def trace(self) -> Path:
        """What the PEs did."""
        return self.directory / "trace.bin"

    @property
    def gdb_socket(self) -> Path:
        """The gdbstub; both sides use its name relative to the directory, which is short."""
        return self.directory / "gdb.sock"

    @property
    def flushes(self) -> Path:
        """What the kernel's dirty bitmaps held at each flush of a buffer."""
        return self.directory / "flushes.jsonl"

    @property
    def buffers(self) -> Path:
        """Whom the memory of the buffers belonged to, and when."""
        return self.directory / "buffers.jsonl"

    @property
    def holds(self) -> Path:
        """What was done about the scenario's holds, and at which trace records."""
        return self.directory / "holds.txt"

    @property
    def gdb_log(self) -> Path:
        """The last that gdb said for people."""
        return self.directory / "gdb.log"

    @property
    def qemu(self) -> Path:
        """What QEMU and the plugin printed."""
        return self.directory / "qemu.log"

    @property
    def run(self) -> Path:
        """What was run."""
        return self.directory / "run.json"


def quote(path: Path | str) -> str:
    """Escape a value for QEMU's option syntax, where a comma ends a value."""
    return str(path).replace(",", ",,")


def kernel_cmdline(spec: MachineSpec) -> str:
    """Return the kernel's command line; raises UsageError if it is too long."""
    words = [
        "console=ttyAMA0",
        "earlycon",  # the PL011 named by the device tree: early deaths leave words
        "loglevel=7",
        "panic=-1",  # reboot at once, which -no-reboot turns into the end of QEMU
        "nokaslr",  # addresses in trace and log are those of vmlinux (-cpu max has RNDR)
    ]
    if spec.mode is Mode.PARALLEL:
        # A busy host can starve a PE for a while, and that is no fault of the kernel.
        # What really hangs is found by our own watchdog.
        words += ["watchdog_thresh=60", "rcupdate.rcu_cpu_stall_timeout=120"]
    words += [*spec.kernel.cmdline, *spec.cmdline]
    text = " ".join(words)
    if len(text) >= CMDLINE_MAX or not text.isprintable():
        raise UsageError(f"the kernel command line is too long or not printable: {text[:80]}...")
    return text


def accelerator(mode: Mode) -> list[str]:
    """Return QEMU's options for a run mode."""
    if mode is Mode.PARALLEL:
        return ["-accel", "tcg,thread=multi"]
    # Counted time stands still at a stop.  With sleep=off QEMU's clock never goes on after one.
    code, sleep = ("", "") if mode is Mode.GDB else (f",tb-size={TB_SIZE}", ",sleep=off")
    return [
        *("-accel", f"tcg,thread=single{code}"),
        *("-icount", f"shift=0{sleep}"),
        *("-rtc", "clock=vm,base=2026-01-01"),
    ]


def compose(
    spec: MachineSpec,
    argv_prefix: tuple[str, ...],
    directory: Path,
    console: str = "stdio,signal=off",
    flush_fd: int | None = None,
) -> tuple[str, ...]:
    """Return QEMU's command line.

    ``console`` is the character device behind the first serial port; the default is
    for people who paste the output of ``--dry-run``.
    """
    files = RunFiles(directory)
    argv = [
        *argv_prefix,
        "-no-user-config",
        "-nodefaults",
        *("-display", "none"),
        "-no-reboot",
        *("-sandbox", SANDBOX),
        *("-M", MACHINE),
        *("-cpu", "max"),
        *("-smp", str(spec.smp)),
        *("-m", f"{spec.memory}M"),
        "-object",
        f"memory-backend-file,id=m0,size={spec.memory}M,share=on,mem-path={quote(files.ram)}",
        *("-seed", str(spec.seed)),
    ]
    argv += accelerator(spec.mode)
    argv += [
        *("-chardev", f"{console},id=console,logfile={quote(files.console)}"),
        *("-serial", "chardev:console"),
        *("-chardev", f"file,id=agent,path={quote(files.agent)}"),
        *("-serial", "chardev:agent"),
    ]
    if spec.plugin is not None:
        options = [quote(spec.plugin), f"ram={quote(files.ram)}"]
        if spec.trace:
            options.append(f"trace={quote(files.trace)}")
        if spec.trace_limit is not None:
            options.append(f"trace-limit={spec.trace_limit}")
        if flush_fd is not None:
            options.append(f"flush-fd={flush_fd}")
            if spec.flushes is not None and spec.flushes.returns:
                options.append("flush-at=" + ":".join(f"{pc:x}" for pc in spec.flushes.returns))
        argv += ["-plugin", ",".join([*options, *map(quote, spec.plugin_options)])]
    if spec.gdbstub:
        path = files.gdb_socket.name
        argv += ["-S", "-chardev", f"socket,id=gdb,path={path},server=on,wait=off"]
        argv += ["-gdb", "chardev:gdb"]
    argv += [
        *("-kernel", str(spec.kernel.image)),
        *("-initrd", str(files.initramfs)),
        *("-append", kernel_cmdline(spec)),
    ]
    return tuple(argv)
