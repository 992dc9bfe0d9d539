# SPDX-License-Identifier: GPL-2.0-or-later
"""Run directories: made for one run, kept in the place of the last one, never in that of others."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from qemu_model.errors import UsageError
from qemu_model.machine.cache import file_trouble


@contextmanager
def run_directory(keep: Path | None, runs: Path, name: str, mark: str | None) -> Iterator[Path]:
    """Make an empty private directory, and have it to ourselves for the length of the block.

    It is ``keep/name``, in the place of one with a file ``mark`` (None: in that of no other);
    or, where nothing is to be kept, a new one in ``runs``.  It stays.  UsageError where the
    place holds something else or a run that goes on, InfrastructureError where it cannot be
    made.
    """
    try:
        directory = _new(runs, name) if keep is None else _in_place(keep / name, mark)
        claim = _claim(directory)
    except OSError as error:
        raise file_trouble("make a run directory in", keep or runs, error) from error
    try:
        yield directory
    finally:
        os.close(claim)


def in_use(directory: Path) -> bool:
    """Whether the directory is that of a run that goes on, or not ours to say."""
    try:
        os.close(_claim(directory))
    except (UsageError, OSError):
        return True
    return False


def _new(runs: Path, name: str) -> Path:
    runs.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}.", dir=runs))


def _in_place(directory: Path, mark: str | None) -> Path:
    with ExitStack() as removal:
        if directory.is_dir():
            removal.callback(os.close, _claim(directory))
        with suppress(OSError):
            directory.rmdir()  # empty: the run that made it could not start
        if directory.exists() and mark is None:
            raise UsageError(f"the run directory {directory} is not empty: name another one")
        if directory.exists() and mark is not None and not (directory / mark).exists():
            raise UsageError(f"{directory} exists and is no run directory; choose another DIR")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
    return directory


def _claim(directory: Path) -> int:
    """A lock that ends with the descriptor, and so with whoever has it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(f"{directory} is that of a run that goes on; choose another DIR") from None
    except OSError:
        pass  # a file system without locks
    return descriptor
