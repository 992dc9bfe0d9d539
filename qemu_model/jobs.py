# SPDX-License-Identifier: GPL-2.0-or-later
"""Several runs at a time, each in a process of its own.

Processes, not threads: a checker that thinks must not hold up another one, and each
worker's QEMU dies with its worker, whatever becomes of us.
"""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from types import FrameType
from typing import TypeVar

from qemu_model.errors import InfrastructureError

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
_END_LIMIT = 15.0
"""Seconds that workers get to clean up when we are interrupted."""


def interrupt_on_signals() -> None:
    """Let SIGTERM, and the end of our terminal, end this process as Ctrl-C does.

    Whoever has asked for SIGHUP to be ignored (nohup) is obeyed.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, handler)


def _interrupt_once() -> None:
    """For a worker: the first signal interrupts it, later ones leave it to clean up.

    Ctrl-C reaches workers from the terminal, and again from the one who started them, who
    also sees to it that they end.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def nothing(number: int, frame: FrameType | None) -> None:
        pass  # not SIG_IGN: Python complains of a signal that has come, but not been handled

    def handler(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, nothing)
        raise KeyboardInterrupt

    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _work(
    function: Callable[..., T], arguments: tuple[object, ...], pipe: Connection, parent: int
) -> None:
    _interrupt_once()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return
    try:
        pipe.send((True, function(*arguments)))
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        pipe.send((False, error))


def run_jobs(
    function: Callable[..., T],
    work: Sequence[tuple[object, ...]],
    jobs: int,
    done: Callable[[T], None],
) -> None:
    """Call ``function`` with each tuple of arguments, ``jobs`` at a time.

    ``done`` gets each value as it comes.  What a call raises is raised here, after the
    others have been ended; a worker that dies without a word is an InfrastructureError.
    """
    context = multiprocessing.get_context("fork")
    waiting = list(work)
    running: dict[Connection, ForkProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work, args=(function, waiting.pop(0), theirs, os.getpid())
                )
                process.start()
                theirs.close()
                running[ours] = process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                process = running.pop(ready)
                try:
                    good, value = ready.recv()
                except EOFError:
                    process.join()
                    raise InfrastructureError(
                        f"a worker died (exit code {process.exitcode}) without a result; "
                        "is the machine out of memory?"
                    ) from None
                finally:
                    ready.close()
                process.join()
                if not good:
                    raise value
                done(value)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join(_END_LIMIT)
            if process.is_alive():
                process.kill()
                process.join()
