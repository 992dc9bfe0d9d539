# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose stops are answered by somebody: who is to blame when one of them dies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from qemu_model.errors import InfrastructureError
from qemu_model.machine import vm
from qemu_model.machine.command import RunFiles
from qemu_model.machine.lost import Loss, MachineLost, Outcome
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.vm import Limits, run_machine
from tests.unit.machine.fake_machine import fake_qemu, fake_spec

GOOD = "boot(); agent.write(HELLO + BEGIN + BYE); say('reboot: Power down')"
HANGS = "boot(); agent.write(HELLO + BEGIN); hang()"
LIMITS = Limits(boot=60.0, stall=60.0, total=120.0, leave=0.5)


class Answers:
    """What would answer the stops: ``do`` is called each time, with the QEMU."""

    def __init__(self, do: Callable[[Answers], None]) -> None:
        self.stops = 0
        self.do = do
        self.detached = False
        self.qemu: Popen[bytes] | None = None

    @contextmanager
    def attach(self, files: RunFiles, qemu: Popen[bytes]) -> Iterator[Answers]:
        self.qemu = qemu
        try:
            yield self
        finally:
            self.detached = True

    def meanwhile(self, drain: Callable[[], None]) -> None:
        pass

    def serve(self, seconds: float) -> None:
        self.do(self)

    def flush(self) -> None:
        pass

    def trouble(self) -> str | None:
        return None

    def unfinished(self) -> str | None:
        return None


class NeverThere(Answers):
    """Cannot be attached."""

    @contextmanager
    def attach(self, files: RunFiles, qemu: Popen[bytes]) -> Iterator[Answers]:
        raise InfrastructureError("gdb cannot connect")
        yield self


@pytest.fixture(autouse=True)
def short_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """For those tests in which QEMU goes on; where it ends, it may take its time."""
    monkeypatch.setattr(vm, "_LAST_WORDS", 1.0)


def run(tmp_path: Path, behaviour: str, answers: Answers, limits: Limits = LIMITS) -> Outcome:
    qemu = fake_qemu(tmp_path / "files", behaviour)
    spec = fake_spec(tmp_path / "files")
    return run_machine(spec, qemu, "vm\n", tmp_path / "run", limits, SilentProgress(), {}, answers)


def how_it_ended(tmp_path: Path) -> object:
    return json.loads((tmp_path / "run" / "run.json").read_text())["end"]["how"]


def idle(answers: Answers) -> None:
    time.sleep(0.05)


def disconnected(answers: Answers) -> None:
    """As a debugger finds it when QEMU ends."""
    assert answers.qemu is not None
    while answers.qemu.poll() is None:
        time.sleep(0.02)
    raise InfrastructureError("QEMU has closed the connection to gdb")


@pytest.mark.parametrize("do", [idle, disconnected])
def test_a_machine_that_powers_off(tmp_path: Path, do: Callable[[Answers], None]) -> None:
    answers = Answers(do)
    assert run(tmp_path, GOOD, answers).channel.bye
    assert answers.detached and how_it_ended(tmp_path) == "complete"


def test_a_qemu_that_dies_tells_its_own_story(tmp_path: Path) -> None:
    with pytest.raises(MachineLost, match="QEMU was killed by SIGKILL") as caught:
        run(tmp_path, "boot(); os.kill(os.getpid(), signal.SIGKILL)", Answers(disconnected))
    assert caught.value.kind is Loss.QEMU


def test_a_qemu_that_does_not_even_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "_LAST_WORDS", 60.0)
    refuses = "print('qemu: no such chardev', file=sys.stderr); sys.exit(1)"
    with pytest.raises(MachineLost, match="status 1: qemu: no such chardev"):
        run(tmp_path, refuses, NeverThere(idle))


def test_a_debugger_that_cannot_be_attached(tmp_path: Path) -> None:
    answers = NeverThere(idle)
    with pytest.raises(InfrastructureError, match=r"^gdb cannot connect$"):
        run(tmp_path, HANGS, answers)
    assert how_it_ended(tmp_path) == "interrupted"
    assert not (tmp_path / "run" / "ram").is_symlink()


def test_a_debugger_that_dies(tmp_path: Path) -> None:
    def dies(answers: Answers) -> None:
        raise InfrastructureError("gdb has ended (status -9)")

    answers = Answers(dies)
    with pytest.raises(InfrastructureError, match="gdb has ended") as caught:
        run(tmp_path, HANGS, answers)
    assert not isinstance(caught.value, MachineLost)
    assert answers.detached and answers.qemu is not None
    assert answers.qemu.poll() is not None  # no QEMU is left behind
    assert how_it_ended(tmp_path) == "interrupted"


def test_ctrl_c(tmp_path: Path) -> None:
    def interrupted(answers: Answers) -> None:
        raise KeyboardInterrupt

    answers = Answers(interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, HANGS, answers)
    assert answers.detached and answers.qemu is not None
    assert answers.qemu.poll() is not None
    assert not (tmp_path / "run" / "ram").exists()


def test_stops_are_a_sign_of_life(tmp_path: Path) -> None:
    def busy(answers: Answers) -> None:
        idle(answers)
        answers.stops += 1

    limits = Limits(boot=60.0, stall=1.5, total=5.0)
    with pytest.raises(MachineLost) as caught:
        run(tmp_path, HANGS, Answers(busy), limits)
    assert caught.value.kind is Loss.TIMEOUT


def test_without_stops_it_hangs(tmp_path: Path) -> None:
    limits = Limits(boot=60.0, stall=1.5, total=60.0)
    with pytest.raises(MachineLost) as caught:
        run(tmp_path, HANGS, Answers(idle), limits)
    assert caught.value.kind is Loss.HANG


def test_a_panic(tmp_path: Path) -> None:
    behaviour = "boot(); say('[ 1.0] Kernel panic - not syncing: no root')"
    with pytest.raises(MachineLost) as caught:
        run(tmp_path, behaviour, Answers(disconnected))
    assert caught.value.kind is Loss.PANIC
