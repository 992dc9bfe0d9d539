# SPDX-License-Identifier: GPL-2.0-or-later
"""Work in processes: values, errors and deaths come back, and nobody stays behind."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.jobs import interrupt_on_signals, run_jobs


def _double(value: int) -> int:
    return 2 * value


def _fail(value: int) -> int:
    raise UsageError(f"no {value}")


def _die(value: int) -> int:
    os._exit(value)


def _stay_or_fail(directory: Path, stays: bool) -> int:
    if not stays:
        while not (directory / "pid").exists():
            time.sleep(0.01)
        raise UsageError("enough")
    (directory / "pid.new").write_text(str(os.getpid()))
    (directory / "pid.new").rename(directory / "pid")
    try:
        time.sleep(60)
    finally:
        (directory / "cleaned").touch()
    return 0


def _clean_up_or_interrupt(directory: Path, stays: bool) -> int:
    if not stays:
        while not (directory / "pid").exists():
            time.sleep(0.01)
        # Ctrl-C reaches all of the terminal's processes, before anybody ends anybody.
        os.kill(int((directory / "pid").read_text()), signal.SIGINT)
        while not (directory / "cleaning").exists():
            time.sleep(0.01)
        raise UsageError("enough")
    try:
        (directory / "pid.new").write_text(str(os.getpid()))
        (directory / "pid.new").rename(directory / "pid")
        time.sleep(60)
    finally:
        (directory / "cleaning").touch()
        time.sleep(0.5)
        (directory / "cleaned").touch()
    return 0


def test_every_value_comes_back() -> None:
    values: list[int] = []
    run_jobs(_double, [(number,) for number in range(7)], 3, values.append)
    assert sorted(values) == [0, 2, 4, 6, 8, 10, 12]


def test_what_a_worker_raises_is_raised_here() -> None:
    with pytest.raises(UsageError, match="no 4"):
        run_jobs(_fail, [(4,)], 2, lambda value: None)


def test_a_worker_that_dies_is_told() -> None:
    with pytest.raises(InfrastructureError, match="exit code 7"):
        run_jobs(_die, [(7,)], 1, lambda value: None)


def test_the_others_are_ended_and_clean_up(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="enough"):
        run_jobs(_stay_or_fail, [(tmp_path, True), (tmp_path, False)], 2, lambda value: None)
    assert (tmp_path / "cleaned").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIG_DFL)


def test_who_cleans_up_is_not_interrupted_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="enough"):
        run_jobs(
            _clean_up_or_interrupt, [(tmp_path, True), (tmp_path, False)], 2, lambda value: None
        )
    assert (tmp_path / "cleaned").exists()
    assert capfd.readouterr().err == ""


@pytest.fixture
def hangup() -> Iterator[None]:
    """Put back what a test does to signals."""
    numbers = (signal.SIGHUP, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_the_end_of_the_terminal_is_an_interrupt(hangup: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    interrupt_on_signals()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGHUP)


def test_nohup_is_obeyed(hangup: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interrupt_on_signals()
    signal.raise_signal(signal.SIGHUP)
