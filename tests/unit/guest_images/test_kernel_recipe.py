# SPDX-License-Identifier: GPL-2.0-or-later
"""build.sh, on a source tree of a few lines whose "kernel" takes no time to build."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest

KERNEL = Path(__file__).parents[3] / "guest_images" / "kernel"
BUILD = KERNEL / "build.sh"

#: `allnoconfig` loses what $(LOST) matches, as Kconfig does with an unmet dependency.
MAKEFILE = """\
allnoconfig:
	grep -v '$(LOST)' $(KCONFIG_ALLCONFIG) >$(O)/.config
vmlinux:
	@echo "  CC      $@.o"
	@cat hello.txt >$(O)/vmlinux
Image: vmlinux
	@echo "  CC      $@.o"
	test $(ARCH) = arm64 && mkdir -p $(O)/arch/arm64/boot
	cp $(O)/vmlinux $(O)/arch/arm64/boot/Image
"""
UAPI = "#define KVM_CAP_X86_GUEST_MODE 238\n"
PATCH = """\
--- a/include/uapi/linux/kvm.h
+++ b/include/uapi/linux/kvm.h
@@ -1 +1,2 @@
 #define KVM_CAP_X86_GUEST_MODE 238
+#define KVM_CAP_ARM_HW_DIRTY_STATE_TRACK 239
"""


class Recipe:
    """A tarball, a patch directory and tools, and a way to run build.sh on them."""

    def __init__(self, tmp_path: Path) -> None:
        self.base = tmp_path
        self.out = tmp_path / "out"
        self.patches = tmp_path / "patches"
        self.patches.mkdir()
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        for tool in ("fake-gcc", "flex", "bison", "bc"):
            (self.bin / tool).write_text("#!/bin/sh\n")
            (self.bin / tool).chmod(0o755)
        self.tree = tmp_path / "linux-source-0.0"
        (self.tree / "include/uapi/linux").mkdir(parents=True)
        (self.tree / "include/uapi/linux/kvm.h").write_text(UAPI)
        (self.tree / "Kconfig").write_text("")
        (self.tree / "hello.txt").write_text("hello\n")
        self.makefile()

    def makefile(self, lost: str = "NOTHING_IS_CALLED_SO", broken: str = "true") -> None:
        text = MAKEFILE.replace("cat hello", f"{broken}; cat hello")
        (self.tree / "Makefile").write_text(text.replace("$(LOST)", lost))
        self.tarball = self.base / "linux-source-0.0.tar.xz"
        with tarfile.open(self.tarball, "w:xz") as tar:
            tar.add(self.tree, "linux-source-0.0")

    def patch(self, text: str = PATCH) -> None:
        (self.patches / "0001-cap.patch").write_text(text)

    def run(self, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.bin}:{os.environ['PATH']}"
        return subprocess.run(
            [str(BUILD), str(self.tarball), str(self.patches), str(self.out), *more],
            env={"PATH": path, "CROSS_COMPILE": "fake-", **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def fails(self, *more: str, **environment: str) -> str:
        done = self.run(*more, **environment)
        assert done.returncode == 1, done.stdout
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path)


def test_results(recipe: Recipe) -> None:
    recipe.patch()
    done = recipe.run()
    assert done.returncode == 0, done.stderr
    assert (recipe.out / "Image").read_text() == "hello\n"
    assert (recipe.out / "vmlinux").read_text() == "hello\n"
    assert (recipe.out / "kvm-cap").read_text() == "239\n"
    assert "CC      Image.o" in (recipe.out / "build.log").read_text()
    assert "kernel: applying 0001-cap.patch" in done.stdout


def test_no_patches_no_capability(recipe: Recipe) -> None:
    assert recipe.run().returncode == 0
    assert (recipe.out / "kvm-cap").read_text() == "0\n"


def test_second_run_unpacks_nothing_and_patches_nothing(recipe: Recipe) -> None:
    recipe.patch()
    assert "unpacking" in recipe.run().stdout
    again = recipe.run().stdout
    assert "unpacking" not in again and "applying" not in again


def test_one_more_patch_is_applied_to_what_is_there(recipe: Recipe) -> None:
    assert recipe.run().returncode == 0
    (recipe.out / "obj" / "an.o").write_text("")
    recipe.patch()
    more = recipe.run().stdout
    assert "unpacking" not in more and "applying 0001-cap.patch" in more
    assert (recipe.out / "kvm-cap").read_text() == "239\n"
    assert (recipe.out / "obj" / "an.o").exists()


@pytest.mark.parametrize("change", ["other patch", "patch before", "no patch", "tarball"])
def test_another_beginning_is_unpacked_anew(recipe: Recipe, change: str) -> None:
    """With its objects: what comes out of a tarball is older than all of them."""
    recipe.patch()
    assert recipe.run().returncode == 0
    (recipe.out / "obj" / "an.o").write_text("")
    if change == "other patch":
        recipe.patch(PATCH.replace("239", "240"))
    elif change == "patch before":
        (recipe.patches / "0000-nothing.patch").write_text("")
    elif change == "no patch":
        (recipe.patches / "0001-cap.patch").unlink()
    else:
        (recipe.tree / "hello.txt").write_text("hello again\n")
        recipe.makefile()
    assert "unpacking" in recipe.run().stdout
    cap = {"other patch": "240", "no patch": "0"}.get(change, "239")
    assert (recipe.out / "kvm-cap").read_text() == f"{cap}\n"
    assert not (recipe.out / "obj" / "an.o").exists()


def test_a_tree_that_is_half_removed_is_not_a_whole_one(recipe: Recipe) -> None:
    """The removal for other patches is interrupted; then the old ones are asked for again."""
    recipe.patch()
    assert recipe.run().returncode == 0
    broken = recipe.bin / "rm"
    broken.write_text(
        '#!/bin/sh\ncase $1 in -rf) /bin/rm -r "$2/hello.txt"; kill -9 $PPID;; esac\n'
        'exec /bin/rm "$@"\n'
    )
    broken.chmod(0o755)
    (recipe.patches / "0000-nothing.patch").write_text("")
    assert recipe.run().returncode < 0
    assert not (recipe.out / "src/hello.txt").exists()
    broken.unlink()
    (recipe.patches / "0000-nothing.patch").unlink()
    again = recipe.run()
    assert again.returncode == 0, again.stderr
    assert "unpacking" in again.stdout


def test_a_patch_that_cannot_be_read_is_not_left_out(recipe: Recipe) -> None:
    assert recipe.run().returncode == 0
    (recipe.patches / "0001-cap.patch").symlink_to("nowhere")
    assert "0001-cap.patch: No such file" in recipe.fails()


def test_what_no_build_reads_is_not_unpacked(recipe: Recipe) -> None:
    read = ["drivers/gpu/drm/Kconfig", "drivers/gpu/drm/Makefile", "drivers/of/empty_root.dts",
            "include/sound/core.h", "arch/arm64/kvm/mmu.c", "tools/include/x.h"]  # fmt: skip
    unread = ["drivers/gpu/drm/x/a.c", "drivers/gpu/drm/x/a.h", "sound/core/a.c",
              "arch/arm64/boot/dts/a/b.dtsi", "tools/testing/selftests/a.c"]  # fmt: skip
    for name in (*read, *unread):
        (recipe.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (recipe.tree / name).write_text("")
    recipe.makefile()
    assert recipe.run().returncode == 0
    assert [name for name in read if not (recipe.out / "src" / name).exists()] == []
    assert [name for name in unread if (recipe.out / "src" / name).exists()] == []


def test_interrupted_unpacking_is_started_again(recipe: Recipe) -> None:
    partial = recipe.out / "src.partial"
    partial.mkdir(parents=True)
    (partial / "Makefile").write_text("half a file")
    (recipe.out / "src").mkdir()
    (recipe.out / "src" / "Makefile").write_text("no stamp: not known to be complete")
    assert recipe.run().returncode == 0
    assert not partial.exists()


def test_fragment_is_added_and_lost_options_are_named(recipe: Recipe) -> None:
    fragment = recipe.base / "more.config"
    fragment.write_text("# why\nCONFIG_MORE=y\n")
    assert recipe.run(str(fragment)).returncode == 0
    assert "CONFIG_MORE=y" in (recipe.out / "obj/.config").read_text()

    recipe.makefile(lost="CONFIG_MORE\\|CONFIG_SMP=")
    error = recipe.fails(str(fragment))
    assert "did not survive" in error
    assert "CONFIG_SMP=y CONFIG_MORE=y" in error


def test_patch_that_does_not_apply_is_named(recipe: Recipe) -> None:
    recipe.patch(PATCH.replace("238", "237"))
    for _ in range(2):
        assert "kernel: 0001-cap.patch failed: " in recipe.fails()
    recipe.patch()
    assert "unpacking" in recipe.run().stdout  # not on top of half of a patch
    assert (recipe.out / "kvm-cap").read_text() == "239\n"


def test_failed_build_says_the_first_error(recipe: Recipe) -> None:
    recipe.makefile(broken="echo 'a.c:1: error: no' >&2; exit 1")
    error = recipe.fails()
    assert "the build failed: a.c:1: error: no" in error
    assert not (recipe.out / "Image").exists()


def test_the_log_says_what_is_being_done_now(recipe: Recipe) -> None:
    """Not only once there are some kilobytes of it."""
    logged = "grep -q 'CC      vmlinux.o' $(O)/../build.log"
    wait = f"for i in $$(seq 100); do {logged} && break; sleep 0.2; done"
    recipe.makefile(broken=f"{wait}; {logged} || exit 1")
    assert recipe.run().returncode == 0


def test_progress_counts_the_objects(recipe: Recipe) -> None:
    recipe.makefile(broken="yes '  AS      a.o' | head -n 250")
    assert re.findall(r"kernel: (\d+) objects", recipe.run().stdout) == ["100", "200"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ARCH": "riscv"}, "ARCH=riscv is not supported"),
        ({"CROSS_COMPILE": "no-such-"}, "no-such-gcc is missing (Debian: apt-get install"),
    ],
)
def test_bad_environment(recipe: Recipe, environment: dict[str, str], words: str) -> None:
    assert words in recipe.fails(**environment)


@pytest.mark.parametrize(
    "name", ["LLVM", "LLVM_IAS", "LOCALVERSION", "KCPPFLAGS", "KBUILD_OUTPUT", "KCONFIG_CONFIG"]
)
def test_what_the_shell_has_for_other_kernels_is_not_for_ours(recipe: Recipe, name: str) -> None:
    recipe.makefile(broken=f'test -z "$({name})" || exit 1')
    done = recipe.run(**{name: "1"})
    assert done.returncode == 0, done.stderr


def test_bad_arguments(recipe: Recipe) -> None:
    assert "no config fragment nowhere" in recipe.fails("nowhere")
    recipe.tarball.unlink()
    assert "no source tarball" in recipe.fails()
    recipe.tarball.write_text("not xz")
    assert "unpacking failed" in recipe.fails()


def test_two_builds_in_one_directory(recipe: Recipe) -> None:
    recipe.out.mkdir()
    holder = subprocess.Popen(["flock", str(recipe.out / ".lock"), "sleep", "30"])
    try:
        for _ in range(100):
            locked = subprocess.run(["flock", "-n", str(recipe.out / ".lock"), "true"])
            if locked.returncode:
                break
        assert "another build is running" in recipe.fails()
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("name", ["config", "debug.config"])
def test_each_option_has_its_reason(name: str) -> None:
    lines = (KERNEL / name).read_text().splitlines()
    for before, line in pairwise(lines):
        if line.startswith("CONFIG_"):
            assert before.startswith(("# ", "CONFIG_")), f"{line} stands without a reason"


def test_series_is_numbered_and_signed() -> None:
    series = sorted((KERNEL / "patches" / "6.12").glob("*.patch"))
    assert series
    for number, patch in enumerate(series, 1):
        text = patch.read_text()
        assert patch.name.startswith(f"{number:04}-")
        assert f"[PATCH {number}/{len(series)}]" in text
        assert re.search(r"^Signed-off-by: HDBSS bench <hdbss@localhost>$", text, re.MULTILINE)
