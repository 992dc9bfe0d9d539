# SPDX-License-Identifier: GPL-2.0-or-later
"""Run one step of a build: output into a log file, progress, a limit, one clear error."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from qemu_model.errors import InfrastructureError
from qemu_model.machine.cache import Building
from qemu_model.machine.child import child

_POLL = 0.1
#: How much of the end of a log is searched for a reason (bytes).
_TAIL = 65536
_NO_SPACE = "No space left on device"
#: With less than this (bytes) a step fails, and cannot even write why: its log is there too.
_FULL = 64 << 10


def tail(path: Path, limit: int = _TAIL) -> str:
    """Return the last ``limit`` bytes of a file as text; empty if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit))
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""


def run_step(
    building: Building,
    what: str,
    argv: Sequence[str],
    log: Path,
    limit: float,
    *,
    env: Mapping[str, str] | None = None,
    explain: Callable[[str], str] | None = None,
) -> None:
    """Run ``argv`` to its end with its output appended to ``log``.

    ``what`` names the step for people.  ``explain`` may find a better reason than
    the last line in the end of the log ("" if it finds none).  Raises
    InfrastructureError naming the log file if the program fails or is still
    running after ``limit`` seconds; the whole process group is ended in every case.
    """
    start = time.monotonic()
    with log.open("ab") as out:
        out.write(f"+ {' '.join(argv)}\n".encode())
        out.flush()
        begin = out.tell()
        with child(argv, stdout=out, env=env, pass_fds=(building.lock,), guard=True) as process:
            last = ""
            with log.open("rb") as reader:
                reader.seek(begin)
                while process.poll() is None:
                    spent = time.monotonic() - start
                    if spent > limit:
                        raise InfrastructureError(
                            f"{what} did not end within {limit:.0f} s; its output is in {log}"
                        )
                    last = _last_line(reader.read(1 << 20)) or last
                    building.progress.status(f"{what}, {spent:.0f} s: {last}")
                    time.sleep(_POLL)
    building.progress.done()
    if process.returncode != 0:
        raise InfrastructureError(f"{what} failed: {_reason(log, begin, explain)}; log: {log}")


def _last_line(data: bytes) -> str:
    lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _reason(log: Path, begin: int, explain: Callable[[str], str] | None) -> str:
    # Only what this step has written, not what an earlier one has.
    text = tail(log, min(_TAIL, log.stat().st_size - begin))
    if _NO_SPACE in text or shutil.disk_usage(log.parent).free < _FULL:
        return "no space left on the device: free some, or set XDG_CACHE_HOME to another disk"
    found = explain(text) if explain is not None else ""
    if found:
        return found
    errors = [line.strip() for line in text.splitlines() if "error" in line.lower()]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # The first error is the cause, the later ones its consequences.
    if errors:
        return errors[0][:300]
    return lines[-1][:300] if lines else "no output"
