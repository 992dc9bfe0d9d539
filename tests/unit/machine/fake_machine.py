# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that is a Python script: takes the real command line, behaves as a test wants."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

from qemu_model.machine.command import KernelImage, MachineSpec
from qemu_model.machine.qemu import Qemu

ARM64_ELF = b"\x7fELF" + bytes(14) + b"\xb7\x00" + b"agent"

_PRELUDE = r"""
import os, re, signal, socket, struct, sys, time
text = " ".join(sys.argv)
console = socket.socket(fileno=int(re.search(r"socket,fd=(\d+)", text)[1]))
log = open(re.search(r"logfile=([^ ,]+)", text)[1], "wb", 0)
agent = open(re.search(r"file,id=agent,path=([^ ,]+)", text)[1], "wb", 0)
trace = re.search(r"trace=([^ ,]+)", text)
trace = trace and trace[1]
ram = open(re.search(r"mem-path=([^ ,]+)", text)[1], "wb", 0)
initrd = open(sys.argv[sys.argv.index("-initrd") + 1], "rb").read()

def say(line):
    data = line if isinstance(line, bytes) else line.encode() + b"\r\n"
    log.write(data)
    console.sendall(data)

def boot():
    say("[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x000f0510]")
    say("[    0.500000] kvm [1]: VHE mode initialized successfully")
    say("[    0.600000] Run /init as init process")

def hang():
    while True:
        time.sleep(1)
"""


def frame(seq: int, text: str, line: int = 0) -> bytes:
    """A frame as the agent sends it."""
    crc = zlib.crc32(f"{seq} {line} {text}".encode())
    return f"@HDBSS {seq} {crc:08x} {line} {text}\n".encode()


HELLO = frame(1, "hello version=1 cpus=1 pagesize=4096")
BEGIN = frame(2, "begin op=vm", 1)
NO_KVM = frame(2, "result op=vm ret=-1 errno=2 errname=ENOENT error=no-kvm", 1)
BYE = frame(3, "bye lines=1")


def fake_qemu(directory: Path, behaviour: str) -> Qemu:
    """Return a QEMU whose machine does ``behaviour`` (Python, after a prelude)."""
    directory.mkdir(parents=True, exist_ok=True)
    script = directory / "fake-qemu.py"
    constants = f"HELLO, BEGIN, NO_KVM, BYE = {HELLO!r}, {BEGIN!r}, {NO_KVM!r}, {BYE!r}\n"
    script.write_text(_PRELUDE + constants + behaviour)
    return Qemu((sys.executable, str(script)), "11.1.3", 7, "test")


def fake_spec(directory: Path, trace: bool = False) -> MachineSpec:
    """A machine whose kernel, agent and plugin are files with a few bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    image, agent, plugin = (directory / name for name in ("Image", "init", "libhdbss.so"))
    image.write_bytes(b"image")
    agent.write_bytes(ARM64_ELF)
    plugin.write_bytes(b"plugin")
    kernel = KernelImage(image, None, 300, "fake kernel")
    return MachineSpec(kernel, agent, plugin, memory=128, trace=trace)
