# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that are read whole: no larger than this bench writes them, whatever is in their place."""

from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO

from qemu_model.errors import UsageError


def open_bounded(path: Path, most: int) -> BinaryIO:
    """Open a file of at most so many bytes for reading.

    OSError as from ``open``; UsageError for one that is larger, or that is a pipe or a device,
    which may have no end.
    """
    status = path.stat()
    if not S_ISREG(status.st_mode) and not S_ISDIR(status.st_mode):
        raise UsageError(f"{path}: no regular file")
    if status.st_size > most:
        raise UsageError(
            f"{path}: {status.st_size} bytes, where this bench writes at most {most}; "
            "it is foreign or damaged"
        )
    return path.open("rb")
