# SPDX-License-Identifier: GPL-2.0-or-later
"""What is here, what is missing, how to get it: as data.  Nothing is built, fetched or changed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qemu_model.errors import InfrastructureError
from qemu_model.machine import fetch, images, tools
from qemu_model.machine.cache import Cache
from qemu_model.machine.qemu import ADVICE, PLUGIN_API, installed_qemu

_MODULES = ("capstone", "elftools", "pexpect", "pygdbmi")
#: Kernel build, QEMU, images and a few runs (bytes).
_SPACE = 6 << 30


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    ``good``: nothing has to be done; ``found`` what is there; ``advice`` how to get it;
    ``needed``: without it the default runs cannot be made.
    """

    name: str
    good: bool
    found: str
    advice: str = ""
    needed: bool = True

    def __str__(self) -> str:
        mark = "ok     " if self.good else "MISSING" if self.needed else "absent "
        advice = f": {self.advice}" if self.advice and not self.good else ""
        return f"{mark} {self.name}: {self.found}{advice}"


def examine(cache: Cache) -> list[Check]:
    """Look at everything that ``hdbss run`` needs."""
    return [*_python(), *_tools(), _source(), _qemu(cache), _gdb(), _space(cache)]


def _python() -> Iterator[Check]:
    version = ".".join(str(number) for number in sys.version_info[:3])
    yield Check("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")
    for module in _MODULES:
        there = importlib.util.find_spec(module) is not None
        found = "installed" if there else "not installed"
        yield Check(f"Python module {module}", there, found, "pip install -e .")


def _tools() -> Iterator[Check]:
    everything = (*tools.host_tools(), *tools.kernel_tools())
    for tool in dict.fromkeys(everything):
        where = tool.find()
        found = where or f"not found, needed for {tool.purpose}"
        yield Check(tool.name, where is not None, found, f"apt install {tool.package}")


def _source() -> Check:
    there = images.tarball().is_file()
    found = str(images.tarball()) if there else "not installed"
    return Check("kernel source", there, found, f"apt install {images.KERNEL_SOURCE}")


def _qemu(cache: Cache) -> Check:
    name = f"QEMU with plugin API {PLUGIN_API}"
    try:
        qemu, misfits = installed_qemu(cache)
    except InfrastructureError as error:
        return Check(name, False, str(error), ADVICE)
    if qemu is not None:
        return Check(name, True, f"{qemu.version} ({qemu.origin})")
    found = f"none ({', '.join(misfits)})" if misfits else "none"
    try:
        fetch.check_host()
    except fetch.CannotFetch as error:
        return Check(name, False, f"{found}, and it cannot be fetched ({error})", ADVICE)
    return Check(name, True, f"{found}; it will be fetched into the cache: hdbss build qemu")


def _gdb() -> Check:
    gdb = tools.Tool("gdb-multiarch", "gdb-multiarch", "--mode gdb and hdbss shell")
    where = gdb.find()
    found = where or f"not found, needed for {gdb.purpose}"
    return Check(gdb.name, where is not None, found, f"apt install {gdb.package}", needed=False)


def _space(cache: Cache) -> Check:
    name = "cache"
    existing = next(path for path in (cache.root, *cache.root.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, False, f"{existing} is not writable", "set XDG_CACHE_HOME")
    free = shutil.disk_usage(existing).free
    built = [kind.name for kind in _kinds(cache.root)]
    found = f"{cache.root}, {free >> 30} GiB free, holds {', '.join(built) or 'nothing yet'}"
    advice = f"free {_SPACE >> 30} GiB or set XDG_CACHE_HOME to another disk"
    return Check(name, free >= _SPACE or "kernel-default" in built, found, advice)


def _kinds(root: Path) -> Iterator[Path]:
    for kind in sorted(root.glob("*")):
        if any(entry.is_dir() and len(entry.name) == 64 for entry in kind.glob("*")):
            yield kind
