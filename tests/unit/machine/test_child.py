# SPDX-License-Identifier: GPL-2.0-or-later
"""Children and grandchildren are gone when the block is left or the parent dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qemu_model.machine.child import child, end_group


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def read_pid(path: Path) -> int:
    end = time.monotonic() + 10
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < end, f"{path} was not written"
        time.sleep(0.02)
    return int(path.read_text())


def test_output_status_and_empty_input(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        argv = ["sh", "-c", "cat; echo one; echo two >&2; exit 3"]
        with child(argv, stdout=out) as process:
            assert process.wait(10) == 3
    assert (tmp_path / "out").read_text() == "one\ntwo\n"


def test_missing_program_is_status_127(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, child(["/no/such"], stdout=out) as process:
        assert process.wait(10) == 127
    assert (tmp_path / "out").read_text() == "/no/such: No such file or directory\n"


@pytest.mark.parametrize("how", [KeyboardInterrupt, ValueError])
def test_grandchildren_end_with_the_block(tmp_path: Path, how: type[BaseException]) -> None:
    pid_file = tmp_path / "pid"
    argv = ["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"]
    with pytest.raises(how), child(argv, stdout=subprocess.DEVNULL) as process:
        grandchild = read_pid(pid_file)
        raise how
    assert gone(process.pid)
    assert gone(grandchild)


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    argv = [sys.executable, "-c", "import signal,time; signal.signal(15, signal.SIG_IGN);"
            "print(1, flush=True); time.sleep(60)"]  # fmt: skip
    read, write = os.pipe()
    try:
        with child(argv, stdout=write, grace=0.2) as process:
            assert os.read(read, 1) == b"1"
        assert process.returncode == -signal.SIGKILL
        end_group(process)
    finally:
        os.close(read)
        os.close(write)


def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "import subprocess\n"
        "from qemu_model.machine.child import child\n"
        f"argv = ['sh', '-c', 'echo $$ > {pid_file}; exec sleep 60']\n"
        "with child(argv, stdout=subprocess.DEVNULL) as process: process.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    grandchild = read_pid(pid_file)
    assert alive(grandchild)
    parent.kill()
    parent.wait()
    assert gone(grandchild)


def test_parent_that_died_before_the_start_is_noticed(tmp_path: Path) -> None:
    script = Path(sys.modules["qemu_model.machine.child"].__file__ or "")
    wrong_parent = os.getpid() + 1
    touched = tmp_path / "touched"
    for how in ("become", "guard"):
        argv = [str(script), how, str(wrong_parent), "sh", "-c", f"sleep 5; echo > {touched}"]
        run = [sys.executable, "-I", "-S", *argv]
        done = subprocess.run(run, check=False, process_group=0, timeout=10)
        assert done.returncode == -signal.SIGKILL
    assert not touched.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_guarded_grandchildren_die_with_a_killed_parent(tmp_path: Path, how: int) -> None:
    pid_file, ended = tmp_path / "pid", tmp_path / "ended"
    # A build in small: a shell that starts a shell, which tidies up when it is asked to end.
    (tmp_path / "inner").write_text(
        f"trap 'echo > {ended}; exit' TERM; echo $$ > {pid_file}; while :; do sleep 0.1; done"
    )
    code = (
        "import subprocess\n"
        "from qemu_model.machine.child import child\n"
        f"argv = ['sh', '-c', 'sh {tmp_path}/inner; true']\n"
        "with child(argv, stdout=subprocess.DEVNULL, guard=True) as process: process.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    grandchild = read_pid(pid_file)
    parent.send_signal(how)
    parent.wait()
    assert gone(grandchild)
    assert ended.exists()


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", 137), ("", 0)])
def test_guard_passes_the_status_on(script: str, status: int) -> None:
    argv = ["sh", "-c", script]
    with child(argv, stdout=subprocess.DEVNULL, guard=True) as process:
        assert process.wait(10) == status


def test_guarded_child_ends_with_the_block(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    argv = ["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"]
    with child(argv, stdout=subprocess.DEVNULL, guard=True):
        grandchild = read_pid(pid_file)
    assert gone(grandchild)
