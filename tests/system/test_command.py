# SPDX-License-Identifier: GPL-2.0-or-later
"""The command on kernels, QEMUs and caches that a user may give it; exit code and message."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qemu_model.report.result import Exit
from qemu_model.runner import Bench
from tests.system.conftest import LIMIT, hdbss, one_line


def test_a_kernel_without_hdbss_has_plain_dirty_logging(prepared: Bench) -> None:
    """Any Image of which we know nothing else; what means nothing for it is skipped."""
    words = ["--kernel", prepared.kernel.image, "--uapi", "none"]
    done = hdbss("run", "bitmap.stride", "uapi.matrix", "fault.gpf", *words)
    assert done.returncode == Exit.AGREE, done.stdout + done.stderr
    assert "3 scenarios: 1 agree, 2 skipped" in done.stdout
    nothing = hdbss("run", "uapi.matrix", *words)
    assert nothing.returncode == Exit.UNSUPPORTED, nothing.stdout + nothing.stderr


@pytest.mark.parametrize("uapi", [[], ["--uapi", "none"]], ids=["asked", "told"])
def test_a_kernel_that_does_not_get_to_init_is_told_once(
    prepared: Bench, tmp_path: Path, uapi: list[str]
) -> None:
    """Its /init has another name, so that it finds nothing to run."""
    image = tmp_path / "Image"
    data = prepared.kernel.image.read_bytes()
    assert b"/init\0" in data
    image.write_bytes(data.replace(b"/init\0", b"/inix\0"))
    done = hdbss("run", "bitmap.*", "--kernel", image, *uapi)
    assert done.returncode == Exit.INFRASTRUCTURE, done.stdout + done.stderr
    assert "agent never started: the kernel could not start /init" in one_line(done)
    assert done.stdout == ""


def test_a_qemu_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "qemu-system-aarch64"
    old.write_text("#!/bin/sh\necho 'QEMU emulator version 5.2.0'\n")
    old.chmod(0o755)
    done = hdbss("run", "bitmap.stride", "--qemu", old)
    assert done.returncode == Exit.INFRASTRUCTURE, done.stdout + done.stderr
    assert "5.2.0" in one_line(done)


def _build(cache: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "qemu_model.cli", "build", "agent"],
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_two_commands_share_a_cache(tmp_path: Path) -> None:
    builds = [_build(tmp_path) for _ in range(2)]
    said = [build.communicate(timeout=LIMIT) for build in builds]
    assert [build.returncode for build in builds] == [Exit.AGREE] * 2, said
    assert said[0][0] == said[1][0]
    made = [path for path in (tmp_path / "hdbss" / "agent").iterdir() if path.is_dir()]
    assert [str(path) for path in made] == [str(Path(said[0][0].split()[1]).parent)]


def test_an_interrupted_build_is_done_again(tmp_path: Path) -> None:
    build = _build(tmp_path)
    end = time.monotonic() + LIMIT
    while not [*tmp_path.glob("hdbss/agent/*.partial")] and build.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    build.send_signal(signal.SIGINT)
    _, err = build.communicate(timeout=LIMIT)
    assert build.returncode == Exit.INTERRUPTED, err
    assert err.splitlines()[-1] == "hdbss: interrupted; nothing is left running"
    again = _build(tmp_path)
    out, err = again.communicate(timeout=LIMIT)
    assert again.returncode == Exit.AGREE, err
    assert Path(out.split()[1]).is_file()
