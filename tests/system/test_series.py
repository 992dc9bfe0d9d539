# SPDX-License-Identifier: GPL-2.0-or-later
"""The series, patch by patch: each tree builds without a warning and boots; checkpatch."""

import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_model.report.result import Exit
from tests.system.conftest import PATCHES, build_kernel, hdbss

pytestmark = pytest.mark.nightly

SERIES = sorted(PATCHES.glob("*.patch"))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("series")


# All of them but the documentation are what everything else runs on.
@pytest.mark.parametrize("count", range(1, len(SERIES) - 1))
def test_the_first_patches_alone(out: Path, count: int, tmp_path: Path) -> None:
    for patch in SERIES[:count]:
        shutil.copy(patch, tmp_path)
    tree = out / str(count)
    build_kernel(tmp_path, tree)
    log = (tree / "build.log").read_text()
    assert "warning: " not in log
    words = ["--linux", tree / "obj", "--uapi", "none"]
    ran = hdbss("run", "baseline.write-protect", "bitmap.stride", *words)
    assert ran.returncode == Exit.AGREE, ran.stdout + ran.stderr
    shutil.rmtree(tree / "obj")


@pytest.mark.parametrize("patch", SERIES, ids=lambda patch: patch.name)
def test_checkpatch_has_no_error(out: Path, patch: Path) -> None:
    trees = sorted(out.glob("*/src/scripts/checkpatch.pl"))
    assert trees, "the trees above were not built"
    done = subprocess.run(
        ["perl", trees[0], "--root", trees[0].parents[1], "--no-summary", patch],
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ERROR:" not in done.stdout, done.stdout
    assert "total: " not in done.stderr and done.returncode in (0, 1), done.stderr
