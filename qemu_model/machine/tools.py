# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's programs and headers that builds need, and the Debian packages that hold them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from qemu_model.errors import InfrastructureError

_LIMIT = 20.0


def cross_prefix() -> str:
    """``CROSS_COMPILE`` from the environment; by default Debian's, none on an arm64 host."""
    default = "" if platform.machine() == "aarch64" else "aarch64-linux-gnu-"
    return os.environ.get("CROSS_COMPILE", default)


@dataclass(frozen=True)
class Tool:
    """A program on PATH, or a pkg-config module if ``module`` is set."""

    name: str
    package: str
    purpose: str
    module: bool = False

    def find(self) -> str | None:
        """Where it is (a module: its version), or None."""
        if not self.module:
            return shutil.which(self.name)
        if shutil.which("pkg-config") is None:
            return None
        return first_line(["pkg-config", "--modversion", self.name])


def first_line(argv: list[str]) -> str | None:
    """Return the first line that a command prints, None if it fails."""
    try:
        result = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = result.stdout.decode(errors="replace").splitlines()
    return lines[0] if result.returncode == 0 and lines else None


def host_tools() -> tuple[Tool, ...]:
    """What the plugin needs."""
    return (
        Tool("make", "make", "builds"),
        Tool("cc", "gcc libc6-dev", "the plugin"),
        Tool("pkg-config", "pkg-config", "the plugin"),
        Tool("glib-2.0", "libglib2.0-dev", "the plugin", module=True),
    )


def cross_tools() -> tuple[Tool, ...]:
    """What the agent needs."""
    compiler = Tool(f"{cross_prefix()}gcc", "gcc-aarch64-linux-gnu", "agent and kernel")
    return (Tool("make", "make", "builds"), compiler)


def kernel_tools() -> tuple[Tool, ...]:
    """What the kernel needs beside its source."""
    return (
        *cross_tools(),
        *(
            Tool(program, package, "the kernel")
            for program, package in (
                ("gcc", "gcc libc6-dev"),
                ("flex", "flex"),
                ("bison", "bison"),
                ("bc", "bc"),
                ("perl", "perl"),
                ("xz", "xz-utils"),
                ("patch", "patch"),
            )
        ),
    )


def require(tools: Iterable[Tool]) -> None:
    """Raise InfrastructureError with one apt line if a tool is missing."""
    missing = [tool for tool in tools if tool.find() is None]
    if missing:
        names = ", ".join(tool.name for tool in missing)
        packages = " ".join(dict.fromkeys(tool.package for tool in missing))
        raise InfrastructureError(f"missing on this host: {names}: apt install {packages}")


def compiler_version(program: str) -> str:
    """Return what tells one compiler from another; raises InfrastructureError."""
    version = first_line([program, "--version"])
    if version is None:
        raise InfrastructureError(f"{program} --version fails: is the compiler complete?")
    return version
