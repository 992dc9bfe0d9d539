# SPDX-License-Identifier: GPL-2.0-or-later
"""Every way in which a machine can end, with fake QEMUs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qemu_model.channel import Bye
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine.console import Stage
from qemu_model.machine.lost import Loss, MachineLost, Outcome
from qemu_model.machine.progress import SilentProgress
from qemu_model.machine.vm import Limits, run_machine
from tests.unit.machine.fake_machine import fake_qemu, fake_spec

#: Generous where a test does not wait for a limit: CI machines are busy.
QUICK = Limits(boot=60.0, stall=60.0, total=120.0, leave=0.5)
NO_AGENT = Limits(boot=3.0, stall=60.0, total=120.0)
STALL = Limits(boot=60.0, stall=3.0, total=120.0)
GOOD = "boot(); agent.write(HELLO + BEGIN + BYE); say('reboot: Power down')"


class Statuses(SilentProgress):
    """Keeps the statuses."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def status(self, text: str) -> None:
        self.texts.append(text)


def run(
    tmp_path: Path, behaviour: str, limits: Limits = QUICK, trace: bool = False, **facts: Any
) -> Outcome:
    spec = fake_spec(tmp_path / "files", trace)
    qemu = fake_qemu(tmp_path / "files", behaviour)
    return run_machine(spec, qemu, "vm\n", tmp_path / "run", limits, SilentProgress(), facts)


def lost(
    tmp_path: Path, behaviour: str, limits: Limits = QUICK, trace: bool = False
) -> MachineLost:
    with pytest.raises(MachineLost) as caught:
        run(tmp_path, behaviour, limits, trace)
    end = json.loads((tmp_path / "run" / "run.json").read_text())["end"]
    assert end["how"] == "lost"
    assert caught.value.headline in end["why"]
    assert caught.value.kind in str(caught.value)
    assert str(tmp_path / "run") in str(caught.value)
    return caught.value


def test_a_good_run(tmp_path: Path) -> None:
    outcome = run(tmp_path, GOOD, scenario="s", feature=True)
    assert outcome.status == 0
    assert outcome.channel.problems == ()
    assert outcome.channel.frames[-1] == Bye(3, 0, 1)
    assert list(outcome.boot.reached) == [Stage.KERNEL, Stage.KVM, Stage.INIT, Stage.AGENT]
    directory = tmp_path / "run"
    assert directory.stat().st_mode & 0o777 == 0o700
    left = sorted(path.name for path in directory.iterdir())
    assert left == ["agent.log", "console.log", "program.txt", "qemu.log", "run.json"]
    assert "Power down" in (directory / "console.log").read_text()
    record = json.loads((directory / "run.json").read_text())
    assert record["scenario"] == "s"
    assert record["machine"]["mode"] == "parallel"
    assert record["machine"]["cmdline"].startswith("console=ttyAMA0")
    assert record["kernel"]["image"]["sha256"] == (
        "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"
    )
    assert record["end"]["how"] == "complete"
    assert record["shared_console"] is False
    assert record["argv"][0] == sys.executable


def test_the_program_reaches_the_machine(tmp_path: Path) -> None:
    outcome = run(tmp_path, f"assert b'program\\0' in initrd and b'vm\\n' in initrd\n{GOOD}")
    assert outcome.channel.bye


def statuses(tmp_path: Path, behaviour: str) -> list[str]:
    """What is told of a machine while it runs."""
    progress = Statuses()
    qemu = fake_qemu(tmp_path, behaviour)
    run_machine(fake_spec(tmp_path), qemu, "vm\n", tmp_path / "run", QUICK, progress)
    return progress.texts


def test_progress_tells_stages_and_lines(tmp_path: Path) -> None:
    behaviour = (
        "boot(); time.sleep(.5); agent.write(HELLO + BEGIN); time.sleep(.5); agent.write(BYE)"
    )
    assert statuses(tmp_path, behaviour)[-2:] == ["init started", "line 1 of 1: vm"]


def test_progress_goes_on_where_the_machine_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qemu_model.machine.vm._REPEAT", 0.5)
    told = statuses(tmp_path, "boot(); time.sleep(2); agent.write(HELLO + BEGIN + BYE)")
    assert any(text.startswith("init started, ") for text in told), told


def test_frames_on_a_shared_console(tmp_path: Path) -> None:
    outcome = run(tmp_path, "boot(); say(HELLO); say('printk'); say(BEGIN + BYE)")
    assert outcome.shared_console
    assert outcome.channel.problems == ()
    assert json.loads((tmp_path / "run/run.json").read_text())["shared_console"] is True
    # What a later check reads is the channel, wherever it was.
    assert (tmp_path / "run/agent.log").read_bytes() == (tmp_path / "run/console.log").read_bytes()


def test_frames_that_only_a_hostile_kernel_prints_do_not_count(tmp_path: Path) -> None:
    outcome = run(tmp_path, "boot(); say(HELLO + BYE); agent.write(HELLO + BEGIN + BYE)")
    assert not outcome.shared_console
    assert len(outcome.channel.frames) == 3


PANIC = "say('[ 1.0] Kernel panic - not syncing: {}')"
OOPS = "say('[ 1.0] Internal error: Oops: 0000000096000004 [#1] SMP')"


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        (f"boot(); {PANIC.format('VFS: no root')}", Loss.PANIC, "VFS: no root, last stage: init"),
        (f"boot(); agent.write(HELLO + BEGIN); {OOPS}; {PANIC.format('Oops: Fatal exception')}",
         Loss.PANIC, "Oops: Fatal exception after: [ 1.0] Internal error: Oops: 000000009600000"),
        (f"boot(); agent.write(HELLO + BEGIN + BYE); {PANIC.format('late')}", Loss.PANIC, "late"),
        (f"boot(); {PANIC.format('stuck')}; hang()", Loss.PANIC, "stuck"),
        (f"boot(); agent.write(HELLO + BEGIN); {PANIC.format('Attempted to kill init! 0xb')}",
         Loss.AGENT, "the agent died, at line 1 of the program: Attempted to kill init! 0xb"),
        (f"boot(); {PANIC.format('Requested init /init failed (error -8).')}", Loss.NO_AGENT,
         "the kernel could not start /init: Requested init /init failed (error -8)."),
        (f"boot(); {PANIC.format('No working init found.')}", Loss.NO_AGENT, "No working init"),
        ("boot(); agent.write(HELLO + BEGIN)", Loss.AGENT,
         "powered off without the agent's bye, at line 1 of the program"),
        ("boot()", Loss.NO_AGENT, "before the agent said a word, last stage: init started"),
        ("pass", Loss.NO_AGENT, "last stage: QEMU started; KVM did not come up"),
        ("say('[ 0.1] kvm [1]: HYP mode not available')", Loss.NO_AGENT,
         "KVM did not come up in this kernel (HYP mode not available): it needs CONFIG_KVM=y"),
        ("agent.write(HELLO + b'@HDBSS 2 %08x 0 fatal text=no%%20kvm\\n' % "
         "__import__('zlib').crc32(b'2 0 fatal text=no%20kvm'))", Loss.AGENT,
         "the agent gave up: no kvm; KVM did not come up in this kernel"),
        ("say('[ 0.8] kvm [1]: KVM disabled from command line'); agent.write(HELLO + NO_KVM + BYE)",
         Loss.NO_KVM, "no /dev/kvm (KVM disabled from command line): it needs CONFIG_KVM=y"),
        ("boot(); os.kill(os.getpid(), signal.SIGSEGV)", Loss.QEMU, "QEMU was killed by SIGSEGV"),
        ("boot(); os.kill(os.getpid(), signal.SIGBUS)", Loss.QEMU, "no space left for the mach"),
        ("print('qemu: bad plugin', file=sys.stderr); sys.exit(1)", Loss.QEMU,
         "QEMU ended with status 1: qemu: bad plugin"),
        ("sys.exit(3)", Loss.QEMU, "QEMU ended with status 3: no message"),
        ("print('qemu: terminating on signal 15 from pid 1')", Loss.QEMU, "from outside"),
        ("boot(); agent.write(HELLO + BEGIN + BYE); hang()", Loss.HANG,
         "the machine does not power off after the agent's bye"),
    ],
)  # fmt: skip
def test_every_loss_is_told_apart(tmp_path: Path, behaviour: str, kind: Loss, words: str) -> None:
    error = lost(tmp_path, behaviour)
    assert error.kind is kind
    assert words in error.headline
    assert "\n" not in error.headline


@pytest.mark.parametrize(
    ("behaviour", "limits", "words"),
    [
        ("boot(); hang()", NO_AGENT, "the agent is not up after 3 s, last stage: init started"),
        ("hang()", NO_AGENT, "the agent is not up after 3 s, last stage: QEMU started"),
        ("boot(); agent.write(HELLO + BEGIN); hang()", STALL,
         "no console output, no frame and no trace record for 3 s, at line 1 of the program"),
    ],
)  # fmt: skip
def test_hangs(tmp_path: Path, behaviour: str, limits: Limits, words: str) -> None:
    error = lost(tmp_path, behaviour, limits)
    assert (error.kind, error.headline) == (Loss.HANG, words)


def test_total_limit_although_it_moves(tmp_path: Path) -> None:
    behaviour = "boot(); agent.write(HELLO)\nwhile True: say('tick'); time.sleep(.1)"
    error = lost(tmp_path, behaviour, Limits(total=3))
    assert (error.kind, "not done after 3 s" in error.headline) == (Loss.TIMEOUT, True)


def test_trace_records_are_a_sign_of_life(tmp_path: Path) -> None:
    behaviour = """
boot(); agent.write(HELLO + BEGIN)
with open(trace, "wb", 0) as out:
    out.write(bytes(64))
    for n in range(1, 12):
        out.write(struct.pack("<QHHI6Q", n, 5, 0, 0, 0, 0, 0, 0, 0, 0))
        time.sleep(.4)
agent.write(BYE)
"""
    outcome = run(tmp_path, behaviour, Limits(stall=2.5), trace=True)
    assert outcome.records == 11


@pytest.mark.parametrize("where", ["say(b'x' * 65536)", "agent.write(b'x' * 65536)"])
def test_floods_are_ended(tmp_path: Path, where: str) -> None:
    limits = Limits(console_bytes=1 << 20, agent_bytes=1 << 20)
    error = lost(
        tmp_path, f"boot(); agent.write(HELLO)\nwhile True: {where}; time.sleep(.001)", limits
    )
    assert error.kind is Loss.FLOOD
    assert "more than 1 MiB" in error.headline


def test_the_last_lines_of_the_console_are_in_the_error(tmp_path: Path) -> None:
    behaviour = r"boot(); say('\x1b[31mred\x07 text\x9b'); say('\xff last'); "
    error = lost(tmp_path, behaviour + PANIC.format("x"))
    assert error.last_lines[-3:-1] == ("red text", "\xff last")
    assert "\n  | red text\n" in str(error)
    assert "\x1b" not in str(error)


def test_the_last_lines_of_a_crashed_qemu_are_its_own(tmp_path: Path) -> None:
    error = lost(tmp_path, "boot(); print('assertion failed', flush=True); os.abort()")
    assert error.kind is Loss.QEMU
    assert "SIGABRT" in error.headline
    assert str(error).endswith("\n  | assertion failed")


def test_a_missing_qemu_is_a_qemu_loss(tmp_path: Path) -> None:
    qemu = replace(fake_qemu(tmp_path, ""), argv_prefix=("/no/such/qemu",))
    with pytest.raises(MachineLost, match="/no/such/qemu: No such file or directory") as caught:
        run_machine(fake_spec(tmp_path), qemu, "", tmp_path / "run", QUICK, SilentProgress())
    assert caught.value.kind is Loss.QEMU


def test_run_directory_in_use(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("")
    with pytest.raises(UsageError, match="is not empty: name another one"):
        run(tmp_path, GOOD)
    assert (tmp_path / "run" / "precious").exists()


def test_run_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InfrastructureError, match="cannot prepare the run directory"):
        run(tmp_path, GOOD)


def test_no_space_for_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InfrastructureError, match="1 MiB are free, 256 MiB are needed"):
        run(tmp_path, GOOD)


def test_missing_files_of_the_machine(tmp_path: Path) -> None:
    spec, qemu = fake_spec(tmp_path), fake_qemu(tmp_path, GOOD)
    spec.kernel.image.unlink()
    with pytest.raises(InfrastructureError, match=r"cannot read .*Image: No such file"):
        run_machine(spec, qemu, "", tmp_path / "run", QUICK, SilentProgress())


def wait_for(condition: Callable[[], bool], limit: float = 10.0) -> bool:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def group_members(group: int) -> list[str]:
    """The living processes of a process group, from /proc."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                members.append(stat.parent.name)
    return members


def _interrupt_when(path: Path) -> None:
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_no_process_and_no_ram(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    behaviour = (
        f"open({str(pid_file)!r}, 'w').write(str(os.getpid()) + '\\n'); boot()\n"
        "import subprocess; subprocess.Popen(['sleep', '60']); print(1); hang()"
    )
    thread = threading.Thread(target=_interrupt_when, args=(pid_file,))
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, behaviour, Limits())
    thread.join()
    assert wait_for(lambda: not group_members(int(pid_file.read_text())))
    assert not (tmp_path / "run" / "ram").is_symlink()
    assert not (tmp_path / "run" / "initramfs").exists()
    end = json.loads((tmp_path / "run" / "run.json").read_text())["end"]
    assert end == {"how": "interrupted", "why": "KeyboardInterrupt"}


def test_qemu_dies_with_a_killed_bench(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    behaviour = f"open({str(pid_file)!r}, 'w').write(str(os.getpid()) + '\\n'); hang()"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from pathlib import Path\n"
        "from tests.unit.machine.fake_machine import fake_qemu, fake_spec\n"
        "from qemu_model.machine.progress import SilentProgress\n"
        "from qemu_model.machine.vm import Limits, run_machine\n"
        f"d = Path({str(tmp_path)!r})\n"
        f"qemu = fake_qemu(d, {behaviour!r})\n"
        "run_machine(fake_spec(d), qemu, '', d / 'run', Limits(), SilentProgress())\n"
    )
    bench = subprocess.Popen([sys.executable, "-c", code])
    assert wait_for(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    group = int(pid_file.read_text())
    assert group_members(group)
    bench.kill()
    bench.wait()
    assert wait_for(lambda: not group_members(group)), "QEMU has outlived the bench"
