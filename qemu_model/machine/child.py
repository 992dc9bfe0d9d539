# SPDX-License-Identifier: GPL-2.0-or-later
"""Start a program that cannot outlive us, and end it with all its children.

Run as a script (``child.py PARENT_PID PROGRAM ARG...``) it is the first thing
in the new process: it asks the kernel for SIGKILL when the parent goes, checks
that the parent is still there (it may have died before we asked) and becomes
PROGRAM.  A script of its own instead of ``preexec_fn``, which is not safe once
the parent has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
#: How long a process group may take to leave after SIGTERM (seconds).
TERM_GRACE = 5.0


def _become(parent: int, argv: Sequence[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"{argv[0]}: prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit(0)
    try:
        os.execvp(argv[0], list(argv))  # replaces this process
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def end_group(process: subprocess.Popen[bytes], grace: float = TERM_GRACE) -> None:
    """End ``process`` and its process group: SIGTERM, ``grace`` seconds, then SIGKILL.

    Returns when the process has been reaped.  Safe to call again.
    """
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    # Also when the leader is gone: its children may have stayed behind.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def child(
    argv: Sequence[str],
    *,
    stdout: int | IO[bytes],
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    grace: float = TERM_GRACE,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``argv`` in a process group of its own for the length of the block.

    Standard input is empty; standard output and error both go to ``stdout``.
    However the block is left (Ctrl-C included) the whole group is gone
    afterwards.  Should this process be killed, the kernel kills the child.
    A program that cannot be started ends with status 127.  The thread that
    enters the block must live as long as the child: the kernel's
    parent-death signal is tied to the thread, not to the process.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=dict(env) if env is not None else None,
        pass_fds=tuple(pass_fds),
        process_group=0,
    )
    try:
        yield process
    finally:
        end_group(process, grace)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
