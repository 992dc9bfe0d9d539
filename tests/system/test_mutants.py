# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels with one thing taken out: each must be found, by the right checker.

Nightly: the tree is built once (minutes), and each mutant again in part (a minute).
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from qemu_model import session
from qemu_model.checkers.finding import Divergence
from qemu_model.machine import images
from qemu_model.machine.cache import Cache
from qemu_model.machine.command import KernelImage, Mode
from qemu_model.machine.flushwatch import FlushPlan
from qemu_model.machine.kernelmap import kernel_map
from qemu_model.machine.progress import SilentProgress
from qemu_model.model.choices import BEST, Choices, Visibility
from qemu_model.report.result import Result
from qemu_model.report.text import block
from qemu_model.runner import Bench, run_scenario
from qemu_model.scenarios.catalogue import select
from tests.system.conftest import hdbss

pytestmark = pytest.mark.nightly

MUTANTS = Path(__file__).parent / "mutants"
BUILD_LIMIT = 45 * 60


@dataclass(frozen=True)
class Tree:
    """A kernel tree that can be changed and built again."""

    directory: Path

    def build(self) -> Path:
        """Build what is there; returns the Image."""
        kernel = images.ROOT / "guest_images" / "kernel"
        subprocess.run(
            [kernel / "build.sh", images.tarball(), kernel / "patches" / "6.12", self.directory],
            check=True,
            timeout=BUILD_LIMIT,
            stdout=subprocess.DEVNULL,
        )
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
    "no-flush-at-put": (
        *(("flush.put", "lost"), ("smp.move", "lost"), ("bitmap.stride", "lost")),
        ("race.put-after-exit", "lost"),
    ),
    "no-flush-on-request": (("flush.request", "reached"),),
    "no-drain-before-off": (("off.pending", "lost"), ("race.off-while-running", "lost")),
    "on-before-buffer": (("race.enable-window", "programming"),),
    "no-drain-at-move": (("slot.move", "lost"),),
    "no-hdbssf-branch": (("buffer.full", "liveness"), ("flush.fault", "liveness")),
    # One barrier without the other shows only where the PEs hold entries back.
    "no-barriers": (("bitmap.random", "lost"), ("bitmap.random", "barriers")),
    "no-dsb": (("bitmap.random", "lost"), ("bitmap.random", "barriers")),
    "no-isb": (("bitmap.random", "lost"), ("bitmap.random", "barriers")),
    "fsc-ignored": (("fault.abort-dirty", "lost"), ("fault.abort-late", "lost")),
    "only-permission": (("fault.abort-precise", "lost"),),
    "no-index-reset": (("buffer.full", "liveness"),),
    "dbm-on-readonly": (("readonly.slot", "uapi"),),
    "no-late-buffer": (("vcpu.late", "programming"), ("race.vcpu-create", "programming")),
    "no-huge-split": (("huge.thp", "reached"),),
    "block-as-page": (("huge.thp", "lost"),),
    "last-entry": (
        *(("migrate.precopy", "lost"), ("atomics", "lost"), ("slot.move", "lost")),
        *(("migrate.precopy", "flushed"), ("atomics", "flushed"), ("slot.move", "flushed")),
        *(("race.get-before-flush", "flushed"), ("race.slot-delete", "flushed")),
    ),
}
"""By mutant: scenarios that have to fail, each with the checker that names the cause."""

CHOICES = {
    mutant: Choices(visibility=Visibility.DSB) for mutant in ("no-barriers", "no-dsb", "no-isb")
}
"""By mutant: what the PEs choose, where that is what shows it."""


def _run(
    prepared: Bench, image: Path, scenario: str, directory: Path, choices: Choices = BEST
) -> Result:
    vmlinux = image.with_name("vmlinux")
    kernel = KernelImage(image, vmlinux, prepared.kernel.cap, "mutant")
    flushes = FlushPlan(kernel_map(vmlinux, Cache(directory / "cache"), SilentProgress()))
    bench = replace(
        prepared, kernel=kernel, flushes=flushes, keep=directory / "runs", choices=choices
    )
    chosen = select([scenario])[0]
    if chosen.holds:
        bench = replace(bench, mode=Mode.GDB, small=True)
    return run_scenario(bench, chosen, SilentProgress())


@pytest.mark.parametrize("mutant", sorted(FOUND), indirect=True)
def test_a_kernel_without_it_is_found(
    prepared: Bench, mutant: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["mutant"]
    for scenario, checker in FOUND[name]:
        result = _run(prepared, mutant, scenario, tmp_path, CHOICES.get(name, BEST))
        assert result.verdict == "DIVERGE", block(result)
        assert checker in {divergence.checker for divergence in result.divergences}, block(result)
        if checker == "flushed":
            for divergence in result.divergences:
                assert checker != divergence.checker or _names_the_last_entry(divergence)


def _names_the_last_entry(divergence: Divergence) -> bool:
    """Whether the flush that was found is one whose last entry is missing."""
    where = re.match(r"flush \d+ \(PE \d+, at hdbss_drain\+", divergence.summary)
    last = re.search(r"INDEX, which was (\d+), .* entry (\d+) of", divergence.required)
    return bool(where and last and int(last[1]) - 1 == int(last[2]))


def test_every_mutant_is_expected() -> None:
    assert {patch.stem for patch in MUTANTS.glob("*.patch")} == {*FOUND, "other-number"}


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
