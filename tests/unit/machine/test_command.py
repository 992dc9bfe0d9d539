# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line, option by option."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qemu_model.errors import UsageError
from qemu_model.machine.command import (
    KernelImage,
    MachineSpec,
    Mode,
    compose,
    kernel_cmdline,
    quote,
)
from qemu_model.machine.flushwatch import FlushPlan
from qemu_model.vmlinux.kernelmap import KernelMap

KERNEL = KernelImage(Path("/k/Image"), None, 300, "test", cmdline=("page_poison=1",))
SPEC = MachineSpec(KERNEL, Path("/a/init"), Path("/p/libhdbss.so"), smp=2, cmdline=("quiet",))
RUN = Path("/r")


def option(argv: tuple[str, ...], name: str) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == name]


def test_what_security_asks_for() -> None:
    argv = compose(SPEC, ("qemu",), RUN)
    assert argv[0] == "qemu"
    assert "-nodefaults" in argv
    sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    assert option(argv, "-sandbox") == [sandbox]
    assert not {"-netdev", "-nic", "-gdb", "-s", "-monitor", "-qmp"} & set(argv)
    assert not any("tcp" in word for word in argv)


def test_machine_and_ram_shared_with_the_plugin() -> None:
    argv = compose(SPEC, ("qemu",), RUN)
    assert option(argv, "-M") == [
        "virt,virtualization=on,gic-version=3,dtb-randomness=off,memory-backend=m0"
    ]
    assert option(argv, "-object") == [
        "memory-backend-file,id=m0,size=512M,share=on,mem-path=/r/ram"
    ]
    assert option(argv, "-m") == ["512M"]
    assert option(argv, "-plugin") == ["/p/libhdbss.so,ram=/r/ram,trace=/r/trace.bin"]
    assert "-no-reboot" in argv


def test_plugin_options() -> None:
    spec = replace(SPEC, trace=False, trace_limit=10, plugin_options=("inject=a",))
    argv = compose(spec, ("qemu",), RUN)
    assert option(argv, "-plugin") == ["/p/libhdbss.so,ram=/r/ram,trace-limit=10,inject=a"]
    assert option(compose(replace(SPEC, plugin=None), ("qemu",), RUN), "-plugin") == []


def test_who_watches_the_flushes() -> None:
    (plain,) = option(compose(SPEC, ("qemu",), RUN), "-plugin")
    (watched,) = option(compose(SPEC, ("qemu",), RUN, flush_fd=7), "-plugin")
    assert watched == f"{plain},flush-fd=7"
    kernel = KernelMap(0, 0, 0, 0, 0, b"", 12, {}, {})
    spec = replace(SPEC, flushes=FlushPlan(kernel, "drain", (0xFFFF_8000, 0xFFFF_8010)))
    (at_return,) = option(compose(spec, ("qemu",), RUN, flush_fd=7), "-plugin")
    assert at_return == f"{plain},flush-fd=7,flush-at=ffff8000:ffff8010"
    assert option(compose(spec, ("qemu",), RUN), "-plugin") == [plain]


def test_modes() -> None:
    parallel = compose(SPEC, ("qemu",), RUN)
    assert option(parallel, "-accel") == ["tcg,thread=multi"]
    assert option(parallel, "-icount") == []
    fixed = compose(replace(SPEC, mode=Mode.DETERMINISTIC, seed=7), ("qemu",), RUN)
    assert option(fixed, "-accel") == ["tcg,thread=single,tb-size=5"]
    assert option(fixed, "-icount") == ["shift=0,sleep=off"]
    assert option(fixed, "-rtc") == ["clock=vm,base=2026-01-01"]
    assert option(fixed, "-seed") == ["7"]


def test_serial_ports() -> None:
    argv = compose(SPEC, ("qemu",), RUN, "socket,fd=5")
    assert option(argv, "-chardev") == [
        "socket,fd=5,id=console,logfile=/r/console.log",
        "file,id=agent,path=/r/agent.log",
    ]
    assert option(argv, "-serial") == ["chardev:console", "chardev:agent"]


def test_kernel_command_line() -> None:
    text = kernel_cmdline(SPEC)
    assert text.startswith("console=ttyAMA0 ")
    assert text.endswith(" page_poison=1 quiet")
    assert {"panic=-1", "nokaslr", "watchdog_thresh=60"} <= set(text.split())
    assert "watchdog_thresh=60" not in kernel_cmdline(replace(SPEC, mode=Mode.DETERMINISTIC))
    # A WARN is for the kernel_log checker, it must not end the run.
    assert "panic_on_warn" not in text


def test_commas_in_paths() -> None:
    assert quote("/a,b") == "/a,,b"
    argv = compose(replace(SPEC, plugin=Path("/p,q.so")), ("qemu",), Path("/r,s"))
    assert option(argv, "-object")[0].endswith("mem-path=/r,,s/ram")
    assert option(argv, "-plugin") == ["/p,,q.so,ram=/r,,s/ram,trace=/r,,s/trace.bin"]
    assert option(argv, "-initrd") == ["/r,s/initramfs"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"smp": 0}, "1 to 8 CPUs, not 0"),
        ({"smp": 9}, "1 to 8 CPUs, not 9"),
        ({"memory": 64}, "128 MiB to 64 GiB"),
        ({"seed": -1}, "does not fit in 64 bits"),
        ({"trace_limit": 0}, "is not positive"),
    ],
)
def test_impossible_machines(change: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(SPEC, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [("x" * 2048,), ("a\nb",)])
def test_impossible_command_lines(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="kernel command line is too long"):
        kernel_cmdline(replace(SPEC, cmdline=words))
