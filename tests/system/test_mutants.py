# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that differ in what no seeded bug makes wrong: found, by the right checker.

Nightly: the tree is built once (minutes), and each mutant again in part (a minute).
Bugs are seeded in a kernel of their own, see ``test_bugs``.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from qemu_model import session
from qemu_model.machine.cache import Cache
from qemu_model.machine.command import KernelImage
from qemu_model.machine.flushwatch import FlushPlan
from qemu_model.machine.kernelmap import kernel_map
from qemu_model.machine.progress import SilentProgress
from qemu_model.report.result import Exit, Result
from qemu_model.report.text import block
from qemu_model.runner import Bench, run_scenario
from qemu_model.scenarios.catalogue import SCENARIOS, select
from tests.system.conftest import PATCHES, build_kernel, hdbss

pytestmark = pytest.mark.nightly

MUTANTS = Path(__file__).parent / "mutants"


@dataclass(frozen=True)
class Tree:
    """A kernel tree that can be changed and built again."""

    directory: Path

    def build(self) -> Path:
        """Build what is there; returns the Image."""
        build_kernel(PATCHES, self.directory)
        return self.directory / "Image"

    def patch(self, patch: Path, *options: str) -> None:
        """Apply a patch; one that does not fit exactly is an error."""
        argv = ["patch", "-p1", "-F0", "-s", "-d", str(self.directory / "src"), "-i", str(patch)]
        argv += options
        subprocess.run(argv, check=True, timeout=60)


@pytest.fixture(scope="module")
def tree() -> Tree:
    directory = session.cache().root / "mutants"
    directory.mkdir(parents=True, exist_ok=True)
    applied = directory / "applied"
    tree = Tree(directory)
    if applied.exists():  # an earlier night was interrupted
        tree.patch(applied.readlink(), "-R")
        applied.unlink()
    tree.build()
    return tree


@pytest.fixture
def mutant(tree: Tree, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The Image of the tree with one patch on top."""
    patch = MUTANTS / f"{request.param}.patch"
    applied = tree.directory / "applied"
    tree.patch(patch)
    applied.symlink_to(patch)
    try:
        yield tree.build()
    finally:
        tree.patch(patch, "-R")
        applied.unlink()


FOUND: dict[str, tuple[tuple[str, str], ...]] = {
    "fsc-ignored": (("fault.abort-dirty", "lost"), ("fault.abort-late", "lost")),
    "fsc-stays": (("fault.abort", "liveness"), ("fault.gpf", "liveness")),
    "index-not-written": (
        ("fault.unknown-registers", "programming"),
        ("fault.hotplug", "programming"),
    ),
    "store-dropped": (
        *(("atomics", "uapi"), ("flush.fault", "uapi"), ("fault.full-early", "uapi")),
        *(("buffer.full", "uapi"), ("buffer.refill", "uapi")),
    ),
    "only-permission": (("fault.abort-precise", "lost"),),
    "no-protect": (("log.running", "lost"), ("huge.thp", "lost")),
    "leaks": (("teardown.enabled", "uapi"), ("uapi.alloc-fails", "uapi")),
    "clear-unprotected": (("bitmap.manual-protect", "lost"), ("bitmap.initially-set", "lost")),
    "plain-unprotected": (("baseline.write-protect", "lost"),),
    "always-offered": (("uapi.nvhe", "uapi"), ("uapi.no-feature", "uapi")),
    "off-refused": (("uapi.matrix", "uapi"),),
}
"""By mutant: scenarios that have to fail, each with the checker that names the cause."""


def _run(prepared: Bench, image: Path, scenario: str, directory: Path) -> Result:
    vmlinux = image.with_name("vmlinux")
    kernel = KernelImage(image, vmlinux, prepared.kernel.cap, "mutant")
    cache = Cache(directory / "cache")
    flushes = FlushPlan(kernel_map(vmlinux, image, cache, SilentProgress()))
    bench = replace(prepared, kernel=kernel, flushes=flushes, keep=directory / "runs")
    return run_scenario(bench, select([scenario])[0], SilentProgress())


@pytest.mark.parametrize("mutant", sorted(FOUND), indirect=True)
def test_a_kernel_without_it_is_found(
    prepared: Bench, mutant: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["mutant"]
    for scenario, checker in FOUND[name]:
        result = _run(prepared, mutant, scenario, tmp_path)
        assert result.verdict == "DIVERGE", block(result)
        assert checker in {divergence.checker for divergence in result.divergences}, block(result)


def test_every_mutant_is_expected() -> None:
    assert {patch.stem for patch in MUTANTS.glob("*.patch")} == {
        *FOUND,
        "other-number",
        "by-itself",
    }


@pytest.mark.parametrize("mutant", ["other-number"], indirect=True)
def test_a_kernel_with_another_capability_number_runs(mutant: Path, tmp_path: Path) -> None:
    number = re.search(r"^\+#define \w+ (\d+)", (MUTANTS / "other-number.patch").read_text(), re.M)
    assert number is not None
    vmlinux = mutant.with_name("vmlinux")
    words = ["run", "bitmap.stride", "buffer.full", "--kernel", mutant, "--vmlinux", vmlinux]
    told = hdbss(*words, "--uapi", f"cap:{number[1]}", "--keep", tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    found = hdbss(*words)
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"--uapi cap:{number[1]}" in found.stderr


@pytest.mark.parametrize("mutant", ["off-refused"], indirect=True)
def test_a_kernel_whose_capability_answers_wrongly_is_asked_further(mutant: Path) -> None:
    """It must not be taken for one without HDBSS, with which everything agrees."""
    vmlinux = mutant.with_name("vmlinux")
    done = hdbss("run", "bitmap.stride", "uapi.matrix", "--kernel", mutant, "--vmlinux", vmlinux)
    assert done.returncode == Exit.DIVERGENCE, done.stdout + done.stderr
    assert "driven by --uapi cap:" in done.stderr
    assert "bitmap.stride [parallel] agree" in done.stdout
    assert "uapi.matrix [parallel] DIVERGE" in done.stdout


@pytest.mark.parametrize("mutant", ["by-itself"], indirect=True)
def test_a_kernel_whose_hdbss_follows_dirty_logging_agrees(mutant: Path) -> None:
    """v4 and v5 of the series have no capability; that is found out."""
    vmlinux = mutant.with_name("vmlinux")
    done = hdbss("run", "--kernel", mutant, "--vmlinux", vmlinux, "--jobs", os.cpu_count() or 1)
    assert done.returncode == Exit.AGREE, done.stdout + done.stderr
    assert "--uapi auto" in done.stderr
    for scenario in SCENARIOS:
        if "auto" in scenario.styles and not scenario.holds:
            assert f"{scenario.name} [parallel] agree" in done.stdout, scenario.name
