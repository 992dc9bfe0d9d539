# SPDX-License-Identifier: GPL-2.0-or-later
"""What the system tests share: the user's cache, one prepared bench, the command itself."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_model import session
from qemu_model.machine import images
from qemu_model.machine.command import Mode
from qemu_model.machine.progress import SilentProgress
from qemu_model.runner import Bench

LIMIT = 900.0
"""Seconds that any one command may take before the test calls it a hang."""

KERNEL = images.ROOT / "guest_images" / "kernel"
PATCHES = KERNEL / "patches" / "6.12"
BUILD_LIMIT = 45 * 60

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def prepared() -> Bench:
    """QEMU, default kernel, agent and plugin from the cache, in parallel mode."""
    return session.prepare(session.Choice(mode=Mode.PARALLEL), SilentProgress())


@pytest.fixture(scope="session")
def gdb_bench() -> Bench:
    """The same in gdb mode, with the QEMU of the distribution."""
    return session.prepare(session.Choice(mode=Mode.GDB), SilentProgress())


def hdbss(*words: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "qemu_model.cli", *map(str, words)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        cwd=Path(__file__).parents[2],
        check=False,
    )


def build_kernel(patches: Path, out: Path) -> None:
    """Build the kernel of the default configuration with these patches, or go on building it."""
    done = subprocess.run(
        [KERNEL / "build.sh", images.tarball(), patches, out],
        timeout=BUILD_LIMIT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    """The message of a command that refused: the one line on stderr."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("hdbss: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]
