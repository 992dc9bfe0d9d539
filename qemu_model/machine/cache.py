# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: directories named by the content they were made from.

``ROOT/KIND/KEY`` is complete or absent: it is built in ``ROOT/KIND/KEY.partial``
and renamed.  A lock per key (``ROOT/KIND/KEY.lock``, flock) lets two runs share
the cache; build processes inherit it, so it is held until the last of them has
ended even if we are killed.  What an interrupted build has left is handed to the
next builder of the same key, and removed as soon as another key of that kind is
built.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from qemu_model.errors import InfrastructureError
from qemu_model.machine.progress import Progress

#: How long to wait for another process that builds the same thing (seconds).
LOCK_LIMIT = 45 * 60.0
_POLL = 0.2
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_PATH_OF_MAKE = re.compile(r"[\s:]")
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)


def default_root() -> Path:
    """``$XDG_CACHE_HOME/hdbss``, by default ``~/.cache/hdbss``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and to be ignored.
    if base and Path(base).is_absolute():
        root = Path(base) / "hdbss"
    else:
        try:
            root = Path.home() / ".cache" / "hdbss"
        except RuntimeError as error:
            raise InfrastructureError(
                "no home directory is known: set XDG_CACHE_HOME to a directory for the cache"
            ) from error
    if _NO_PATH_OF_MAKE.search(str(root)):
        raise InfrastructureError(
            f"make cannot build in {root}, which has a blank or a colon in its name: "
            "set XDG_CACHE_HOME to another place"
        )
    return root


def content_key(*parts: str | bytes | Path) -> str:
    """Return the sha256 (64 hex digits) of ``parts``: strings, bytes, contents of files.

    Each part is preceded by its length, so that no two lists of parts collide.
    Raises InfrastructureError if a file cannot be read.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            data = file_digest(part)
        else:
            data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def file_digest(path: Path) -> bytes:
    """Return the sha256 of a file's contents (32 bytes); raises InfrastructureError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise file_trouble("read", path, error) from error


def file_trouble(doing: str, path: Path, error: OSError) -> InfrastructureError:
    """Turn an OSError into the one line a person needs."""
    if error.errno in _NO_SPACE:
        advice = "no space left on the device: free some, or set XDG_CACHE_HOME to another disk"
    elif error.errno in _NO_ACCESS:
        advice = f"{error.strerror}: make it accessible, or set XDG_CACHE_HOME to another place"
    else:
        advice = error.strerror or str(error)
    return InfrastructureError(f"cannot {doing} {path}: {advice}")


@dataclass(frozen=True)
class Building:
    """What a builder works with.

    ``directory`` becomes the cache entry when the builder returns; it holds what an
    interrupted build of the same key has left.  ``lock`` is to be inherited by
    build processes (``pass_fds``).
    """

    directory: Path
    lock: int
    progress: Progress


@dataclass(frozen=True)
class Cache:
    """A cache below ``root``; see the module's docstring."""

    root: Path

    def find(self, kind: str, key: str) -> Path | None:
        """Return the finished entry, or None."""
        entry = self.root / kind / key
        return entry if entry.is_dir() else None

    def build(
        self,
        kind: str,
        key: str,
        builder: Callable[[Building], None],
        progress: Progress,
        lock_limit: float = LOCK_LIMIT,
    ) -> Path:
        """Return the entry ``kind``/``key``, made by ``builder`` if it is not there.

        Raises what ``builder`` raises (the partial directory stays, to be resumed),
        and InfrastructureError for a full disk, missing rights or a lock that
        another process has held for ``lock_limit`` seconds.
        """
        entry = self.find(kind, key)
        if entry is not None:
            return entry
        directory = self.root / kind
        entry, partial = directory / key, directory / f"{key}.partial"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with _locked(directory / f"{key}.lock", kind, progress, lock_limit) as lock:
                if entry.is_dir():  # somebody else built it while we waited
                    return entry
                _remove_stale(directory, key, progress)
                partial.mkdir(mode=0o755, exist_ok=True)
                builder(Building(partial, lock, progress))
                partial.rename(entry)
        except OSError as error:
            where = Path(str(error.filename)) if error.filename else directory
            raise file_trouble(f"build {kind} in the cache: write", where, error) from error
        return entry


@contextmanager
def _locked(path: Path, what: str, progress: Progress, limit: float) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _take(descriptor, path, what, progress, limit)
        yield descriptor
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, what: str, progress: Progress, limit: float) -> None:
    end = time.monotonic() + limit
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if not told:
            progress.line(f"{what}: another process is building it; waiting for it")
            told = True
        if time.monotonic() >= end:
            raise InfrastructureError(
                f"{what}: another process has held {path} for {limit:.0f} s: "
                "wait for it or end it, then start again"
            )
        time.sleep(_POLL)


def _remove_stale(directory: Path, key: str, progress: Progress) -> None:
    """Remove what interrupted builds of other keys left, unless they are still running."""
    for partial in directory.glob("*.partial"):
        other = partial.name.removesuffix(".partial")
        if other == key:
            continue
        with suppress(BlockingIOError):
            descriptor = os.open(directory / f"{other}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                progress.status(f"removing what an interrupted build left in {partial}")
                shutil.rmtree(partial)
            finally:
                os.close(descriptor)
