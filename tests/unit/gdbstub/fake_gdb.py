# SPDX-License-Identifier: GPL-2.0-or-later
"""A gdb that is a Python script: speaks MI on its pipes, behaves as a test wants."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

from qemu_model.gdbstub.mi import Gdb
from qemu_model.machine.child import child

PRELUDE = r"""
import os, signal, sys, time
log = open(sys.argv[1], "w", buffering=1)

def hear():
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(0)
    log.write(line.decode())
    return line.decode().strip()

def say(*lines):
    for line in lines:
        data = line if isinstance(line, bytes) else line.encode() + b"\n"
        while data:
            data = data[os.write(1, data):]

def ok(payload=""):
    line = hear()
    say("^done" + payload, "(gdb) ")
    return line

def stop(thread, address, reason="breakpoint-hit"):
    say('*stopped,reason="%s",frame={addr="%s",func="f",args=[]},thread-id="%d",'
        'stopped-threads="all"' % (reason, hex(address), thread))

def serve():
    while True:
        ok()

def settings():
    say('=thread-group-added,id="i1"', '~"GNU gdb\\n"', "(gdb) ")
    while ok() != "-gdb-set remotetimeout 20":
        pass

def connected(names="x0 x1 ESR_EL2"):
    settings()
    hear()
    say('=thread-group-started,id="i1"')
    stop(1, 0x40000000, "signal-received")
    say("^connected", "(gdb) ")
    ok()
    ok(',register-names=[%s]' % ",".join('"%s"' % name for name in ["", *names.split()]))
"""


def script(directory: Path, body: str) -> Path:
    """The program; the lines that it hears are in ``heard`` beside it."""
    path = directory / "fake-gdb.py"
    path.write_text(PRELUDE + body)
    return path


def heard(directory: Path) -> list[str]:
    """The commands that the fake has got so far."""
    return (directory / "heard").read_text().splitlines()


@contextmanager
def process(directory: Path, body: str) -> Iterator[Popen[bytes]]:
    """The fake, running."""
    argv = (sys.executable, str(script(directory, body)), str(directory / "heard"))
    with child(argv, stdin=PIPE, stdout=PIPE, grace=0.1) as running:
        yield running


@contextmanager
def fake_gdb(directory: Path, body: str) -> Iterator[Gdb]:
    """A gdb whose settings were made, and which then does ``body``."""
    with process(directory, f"settings()\n{body}") as running:
        yield Gdb(running)


@contextmanager
def connected_gdb(directory: Path, body: str) -> Iterator[Gdb]:
    """A gdb that is connected, with the registers x0, x1 and ESR_EL2."""
    with process(directory, f"connected()\n{body}") as running:
        gdb = Gdb(running)
        gdb.connect("gdb.sock")
        yield gdb
