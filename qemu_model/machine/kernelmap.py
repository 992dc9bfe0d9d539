# SPDX-License-Identifier: GPL-2.0-or-later
"""The map of a kernel's memory, from the user's cache: reading it takes seconds."""

from __future__ import annotations

from pathlib import Path

from qemu_model.errors import InfrastructureError, Unsupported, UsageError
from qemu_model.machine.cache import Building, Cache, content_key
from qemu_model.machine.progress import Progress
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.kernelmap import VERSION, KernelMap, dump, load, read_map

_FILE = "map.json"


def kernel_map(vmlinux: Path, image: Path, cache: Cache, progress: Progress) -> KernelMap:
    """``read_map``, kept in the cache by the content of the file.

    Raises Unsupported with the reason why this vmlinux cannot serve, InfrastructureError if
    the Image is of another build: two builds of one version have the same banner, and can
    have it at the same address.
    """

    def build(building: Building) -> None:
        (building.directory / _FILE).write_text(dump(read_map(Vmlinux(vmlinux))))

    try:
        entry = cache.build("kernel-map", content_key(f"{VERSION}", vmlinux), build, progress)
        found = load((entry / _FILE).read_text())
    except (UsageError, InfrastructureError, OSError, ValueError, KeyError, TypeError) as error:
        raise Unsupported(str(error)) from error
    Vmlinux(vmlinux).require_image(image)
    return found
