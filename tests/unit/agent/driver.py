# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the agent's pure parts for the host, with sanitizers, and runs them."""

import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

HERE = Path(__file__).parent
AGENT = HERE.parents[2] / "guest_images" / "agent"
PURE = ("program.c", "grammar.c", "bits.c", "frame.c", "truth.c", "klog_record.c")


class Crash(Exception):
    """The driver died: a sanitizer's report."""


@cache
def _binary() -> Path:
    out = Path(mkdtemp(prefix="agent-driver-")) / "driver"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [str(AGENT / name) for name in PURE]
    command = ["cc", *flags, f"-I{AGENT}", "-o", str(out), str(HERE / "driver.c"), *sources]
    subprocess.run(command, check=True, timeout=120)
    return out


def drive(what: str, *args: object, data: bytes = b"") -> bytes:
    """Run ``driver what args`` with ``data`` as input; returns its output."""
    command = [str(_binary()), what, *(str(arg) for arg in args)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Crash(done.stderr.decode(errors="replace"))
    return done.stdout
