# SPDX-License-Identifier: GPL-2.0-or-later
"""Start a program that cannot outlive us, and end it with all its children.

Run as a script (``child.py HOW PARENT_PID PROGRAM ARG...``) it is the first thing
in the new process.  It asks the kernel for a signal when the parent goes, and checks
that the parent is still there (it may have died before we asked).  HOW is ``become``:
it turns into PROGRAM, which is killed by that signal; or ``guard``: it starts PROGRAM,
stays, and ends the whole process group on that signal, for programs with children.
A script of its own instead of ``preexec_fn``, which is not safe once the parent has
threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn

_PR_SET_PDEATHSIG = 1
#: How long a process group may take to leave after SIGTERM (seconds).
TERM_GRACE = 5.0
_GUARD_GRACE = 1.0


def _die_with(parent: int, number: signal.Signals) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _become(argv: Sequence[str]) -> NoReturn:
    try:
        os.execvp(argv[0], list(argv))
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


def _end_own_group(number: int, frame: object) -> None:
    os.killpg(0, signal.SIGTERM)  # which we ignore ourselves
    time.sleep(_GUARD_GRACE)
    os.killpg(0, signal.SIGKILL)


def _guard(parent: int, argv: Sequence[str]) -> NoReturn:
    pid = os.fork()
    if pid == 0:
        _become(argv)
    # The program gets SIGTERM like all of the group; we go when it has gone.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, _end_own_group)
    _die_with(parent, signal.SIGUSR1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


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
    stdin: int = subprocess.DEVNULL,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    grace: float = TERM_GRACE,
    guard: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``argv`` in a process group of its own for the length of the block.

    Standard input is empty unless ``stdin`` says otherwise; standard output and error
    both go to ``stdout``.
    However the block is left (Ctrl-C included) the whole group is gone
    afterwards.  Should this process be killed, the child is killed too; with ``guard``
    its children are as well, and a signal that ends it becomes status 128 + signal.
    A program that cannot be started ends with status 127.  The thread that
    enters the block must live as long as the child: the kernel's
    parent-death signal is tied to the thread, not to the process.
    """
    how = "guard" if guard else "become"
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, how, str(os.getpid()), *argv],
        stdin=stdin,
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
    if sys.argv[1] == "guard":
        _guard(int(sys.argv[2]), sys.argv[3:])
    _die_with(int(sys.argv[2]), signal.SIGKILL)
    _become(sys.argv[3:])
