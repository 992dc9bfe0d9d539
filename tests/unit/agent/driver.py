# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds what of the agent runs on the host, with sanitizers, and runs it."""

import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

HERE = Path(__file__).parent
AGENT = HERE.parents[2] / "guest_images" / "agent"
PURE = ("program.c", "grammar.c", "bits.c", "frame.c", "truth.c", "klog_record.c")
SLOTS = ("program.c", "grammar.c", "bits.c", "truth.c", "slot.c", "ops_slot.c", "migrate.c",
         "result.c")  # fmt: skip


class Crash(Exception):
    """The driver died: a sanitizer's report."""


@cache
def _binary(name: str, parts: tuple[str, ...], *more: str) -> Path:
    out = Path(mkdtemp(prefix="agent-driver-")) / name
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *more]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [str(AGENT / part) for part in parts]
    command = ["cc", *flags, f"-I{AGENT}", "-o", str(out), str(HERE / f"{name}.c"), *sources]
    subprocess.run(command, check=True, timeout=120)
    return out


def _run(command: list[str], data: bytes) -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Crash(done.stderr.decode(errors="replace"))
    return done.stdout


def drive(what: str, *args: object, data: bytes = b"") -> bytes:
    """Run ``driver what args`` with ``data`` as input; returns its output."""
    return _run([str(_binary("driver", PURE)), what, *(str(arg) for arg in args)], data)


def drive_slots(program: str) -> list[str]:
    """Carry out a program about slots; for each line ``op ret errno error``."""
    binary = _binary("slot_driver", SLOTS, "-Wl,--wrap=ioctl")
    return _run([str(binary)], program.encode()).decode().splitlines()
