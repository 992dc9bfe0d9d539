# SPDX-License-Identifier: GPL-2.0-or-later
"""The prompt on a real kernel, as a person, a pipe and a signal meet it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pexpect
import pytest

from qemu_model import session
from qemu_model.errors import InfrastructureError
from qemu_model.gdbstub.shell import PROMPT
from qemu_model.machine.command import Mode
from qemu_model.machine.progress import SilentProgress
from qemu_model.prompted import run_shell
from qemu_model.report.result import Exit
from qemu_model.runner import Bench
from qemu_model.scenarios.catalogue import select
from tests.system.conftest import hdbss, one_line

ROOT = Path(__file__).parents[2]
SCENARIO = "buffer.full"
PATIENCE = 240
"""Seconds for one command on a busy host."""


def left_in(directory: Path) -> list[str]:
    """Processes that name a directory, or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if str(directory) in words or place.startswith(str(directory)):
            found.append(words.replace("\0", " "))
    return found


class Person:
    """Someone at a terminal."""

    everybody: ClassVar[list[Person]] = []

    def __init__(self, directory: Path, *words: str) -> None:
        self.directory = directory
        self.terminal = pexpect.spawn(
            sys.executable,
            ["-m", "qemu_model.cli", "shell", SCENARIO, "--keep", str(directory), *words],
            cwd=str(ROOT),
            env={**os.environ, "TERM": "dumb"},
            encoding="utf-8",
            timeout=PATIENCE,
            dimensions=(50, 250),
        )
        self.everybody.append(self)
        self.greeting = self.prompt()

    def prompt(self) -> str:
        """What comes before the next prompt."""
        self.terminal.expect_exact(PROMPT)
        return str(self.terminal.before)

    def says(self, command: str) -> str:
        """Type a command and read the answer."""
        self.terminal.sendline(command)
        return self.prompt()

    def leaves(self) -> int | None:
        """Wait for the end; the exit code."""
        self.terminal.expect(pexpect.EOF)
        self.terminal.wait()
        return self.terminal.exitstatus


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """Where the run directory is made; nothing may be left that belongs to it."""
    yield tmp_path / "kept"
    while Person.everybody:
        Person.everybody.pop().terminal.close(force=True)
    assert left_in(tmp_path) == []


def test_from_the_first_entry_to_the_end(kept: Path) -> None:
    person = Person(kept, "--stop-at", "kvm_arm_init+4")
    assert "reached kvm_arm_init+4" in person.greeting
    assert "stands at kvm_arm_init+0x4, EL2" in person.greeting
    assert "PE 1: " in person.says("where")

    answer = person.says("next append")
    assert "APPEND INDEX=0 ipa=0x40000000" in answer
    assert "entry 0: IPA 0x40000000, TTWL 3 (level 3, 4 KB)" in answer
    assert "writable-clean -> writable-dirty" in answer
    assert "stands at 0x10000024, in the guest" in answer
    where = person.says("where")
    assert "EL1, in the guest" in where and "HDBSS on: VTCR_EL2" in where
    assert "INDEX 1, FSC 0x00 (no fault); 1 pending" in where
    buffer = person.says("buffer")
    assert "[0] 0x0000000040000007: IPA 0x40000000" in buffer
    assert "-> [1] 0x0000000000000000: not valid; the next entry goes here" in buffer
    assert "a write: is done, nothing is recorded" in person.says("walk 0x40000000")
    walk = person.says("walk 0x40001000")
    assert "level 3: table " in walk and ": writable-clean" in walk
    assert "a write: makes it dirty and appends entry 1" in walk
    assert "// PC" in person.says("disas")
    assert "0x0000000000000001" in person.says("regs hdbssprod_el2")

    # A breakpoint where the interceptor acts itself: shown first, and done afterwards.
    person.says("break __kvm_hyp_vector+0x400")
    answer = person.says("continue")
    assert "breakpoint 2, __kvm_hyp_vector+0x400" in answer and "the model acts here" in answer
    assert "INDEX 1," in person.says("where")
    assert "INDEX=1 ipa=0x40001000" in person.says("next append")
    person.says("delete")
    assert "INDEX 2," in person.says("where")

    answer = person.says("next refusal")
    assert "the buffer is full: INDEX 512 of 512; a write to IPA 0x40200000" in answer
    assert "is refused with HDBSSF: the buffer is full" in person.says("walk 0x40200000")
    assert "-> [512] is behind the end" in person.says("buffer")
    assert "INDEX 512 -> 0 at hdbss_drain" in person.says("next flush")
    assert "hdbss_drain+" in person.says("step 2")
    assert "msr HDBSSPROD_EL2, " in person.says("disas hdbss_drain+0x138 1")
    assert "HDBSSF" in person.says("where")
    assert "has no memory at 0xdead00000000" in person.says("disas 0xdead00000000")
    assert "run 0 stride" in person.says("agent")

    assert "the machine has powered off" in person.says("continue")
    assert " END reason=0x0" in person.says("trace 1")
    assert "lines are done" in person.says("agent")
    assert "the machine has ended" in person.says("where")
    person.terminal.sendline("quit")
    assert person.leaves() == 0
    # Nothing of all that has disturbed the machine.
    (run,) = kept.iterdir()
    assert hdbss("check", run).returncode == Exit.AGREE


def test_bad_commands_and_interrupts(kept: Path) -> None:
    person = Person(kept)
    assert "the machine stands at its first instruction" in person.greeting
    for command, said in (
        ("frobnicate 1", "there is no command frobnicate"),
        ("walk", "usage: walk IPA [PE]"),
        ("walk here", "'here' is not a number"),
        ("walk 0 0", "VTTBR_EL2 is 0"),
        ("buffer 7", "PE: 7 is not between 0 and 0x1"),
        ("regs nothing", "there is no register nothing"),
        ("regs v0", "is no register of one number"),
        ("disas nosuchsymbol", "there is no symbol nosuchsymbol"),
        ("disas 0x40000001", "is not the address of an instruction"),
        ("break vm_list+x", "is not SYMBOL or SYMBOL+OFFSET"),
        ("break 0x40000001", "is not the address of an instruction"),
        ("until", "usage: until SYMBOL[+OFFSET]"),
        ("delete 4", "there is no breakpoint 4"),
        ("continue never", "'never' is not a number"),
        ("continue nan", "is not between"),
        ("step 0", "N: 0 is not between 1"),
        ("next week", "usage: next append|refusal|flush|entry|exit"),
        ("trace 1 2", "too many arguments"),
        ("help nothing", "there is no command nothing"),
        ("pe 1", "PE 1 stands at"),
        ("step", "PE 1 is halted"),
    ):
        answer = person.says(command)
        assert said in answer, command
        lines = [line for line in answer.splitlines()[1:] if line.strip()]
        assert len(lines) == 1 or command == "pe 1", lines
    assert person.says("").strip() == ""
    assert "walk IPA [PE]: " in person.says("help")
    assert "the stage 2 walk" in person.says("help walk")
    assert "the agent has not said a word yet" in person.says("agent")
    assert "stands at 0x40000004" in person.says("pe 0") + person.says("step")

    person.terminal.sendintr()
    person.prompt()
    assert "the time is over" in person.says("continue 0.3")
    person.terminal.sendline("continue")
    time.sleep(1)
    person.terminal.sendintr()
    assert "interrupted" in person.prompt()
    assert "EL" in person.says("where")
    person.terminal.sendeof()
    assert person.leaves() == 0


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_signals_leave_nothing(kept: Path, number: signal.Signals, running: bool) -> None:
    person = Person(kept)
    if running:
        person.terminal.sendline("continue")
        time.sleep(0.5)
    person.terminal.kill(number)
    status = person.leaves()
    if number is not signal.SIGKILL:
        assert status == Exit.INTERRUPTED
    end = time.monotonic() + 20
    while left_in(kept) and time.monotonic() < end:
        time.sleep(0.1)


def test_a_pipe(kept: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qemu_model.cli", "shell", SCENARIO, "--keep", str(kept)],
        input="where\nuntil start_kernel\nwh\nlog 1",
        capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "(hdbss) where\n* PE 0: 0x40000000, EL2, host\n" in done.stdout
    assert "reached start_kernel\nPE 0 stands at start_kernel, EL2\n" in done.stdout
    assert "(hdbss) wh\nthere is no command wh; help lists them\n(hdbss) log 1\n" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((SCENARIO, "--stop-at", "nosuchsymbol"), Exit.USAGE, "no symbol nosuchsymbol"),
        ((SCENARIO, "--stop-at", "schedule+x"), Exit.USAGE, "SYMBOL+OFFSET"),
        ((SCENARIO, "--stop-at", "-4"), Exit.USAGE, "-4 is not the address"),
        (("flush.*",), Exit.USAGE, "hdbss shell takes one"),
        (("nothing",), Exit.USAGE, "hdbss list"),
        (("uapi.no-feature",), Exit.UNSUPPORTED, "uapi.no-feature"),
    ],
)
def test_what_is_told_before_the_machine_starts(
    kept: Path, words: tuple[str, ...], code: Exit, said: str
) -> None:
    done = hdbss("shell", *words[:1], "--keep", kept, *words[1:])
    assert done.returncode == code
    assert said in one_line(done)
    assert not kept.exists()


def test_a_kernel_without_vmlinux(kept: Path, prepared_gdb: Bench) -> None:
    image = prepared_gdb.kernel.image
    done = hdbss("shell", SCENARIO, "--kernel", image, "--uapi", "none", "--keep", kept)
    assert done.returncode == Exit.USAGE
    assert "give --vmlinux" in one_line(done)


@pytest.fixture(scope="module")
def prepared_gdb() -> Bench:
    """QEMU, default kernel and agent, in gdb mode."""
    return session.prepare(session.Choice(mode=Mode.GDB), SilentProgress())


def test_a_panic_is_told(
    kept: Path,
    prepared_gdb: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kernel = replace(prepared_gdb.kernel, cmdline=("rdinit=/nothing",))
    bench = replace(prepared_gdb, kernel=kernel, keep=kept)
    monkeypatch.setattr("sys.stdin", io.StringIO("until hdbss_drain\nlog 30\nregs\nquit\n"))
    (scenario,) = select([SCENARIO])
    with pytest.raises(InfrastructureError, match="files: "):
        run_shell(bench, scenario, None, SilentProgress())
    out = capsys.readouterr().out
    assert "  | " in out and "hdbss_drain was not reached" in out
    assert "Kernel panic" in out.partition("(hdbss) log 30")[2]
    assert out.endswith("(hdbss) regs\nthe machine has ended\n(hdbss) quit\n")
