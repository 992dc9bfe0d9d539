# SPDX-License-Identifier: GPL-2.0-or-later
"""Building into the cache with fake recipes, and the user's own kernels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine import images, tools
from qemu_model.machine.cache import Cache
from qemu_model.machine.doctor import Check, examine
from qemu_model.machine.progress import SilentProgress

MAKEFILE = "all:\n\techo built >> $(O)/{product}\n\techo 1 >> {calls}\n"


class Lines(SilentProgress):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with fake sources; all tools are there; the recipes count their calls."""
    root = tmp_path / "project"
    for name, product in (("guest_images/agent", "init"), ("qemu_model/plugin", "libhdbss.so")):
        (root / name).mkdir(parents=True)
        (root / name / "a.c").write_text("int a;\n")
        text = MAKEFILE.format(product=product, calls=tmp_path / "calls")
        (root / name / "Makefile").write_text(text)
    kernel = root / "guest_images/kernel"
    (kernel / "patches/6.12").mkdir(parents=True)
    (kernel / "patches/6.12/0001-a.patch").write_text("patch")
    (kernel / "config").write_text("CONFIG_KVM=y\n")
    (kernel / "debug.config").write_text("CONFIG_KASAN=y\n")
    recipe(root, 'echo 245 > "$3/kvm-cap"; mkdir -p "$3/src" "$3/obj"; echo c > "$3/obj/.config"')
    monkeypatch.setattr(images, "ROOT", root)
    monkeypatch.setattr(images, "_USR_SRC", tmp_path)
    monkeypatch.setattr(tools, "require", lambda wanted: None)
    monkeypatch.setattr(tools, "compiler_version", lambda program: f"{program} 12")
    images.tarball().write_text("tarball")
    return root


def recipe(root: Path, body: str) -> None:
    path = root / "guest_images/kernel/build.sh"
    path.write_text(
        f'#!/bin/sh\necho 1 >> {root.parent}/calls\necho "$@" > {root.parent}/arguments\n{body}\n'
        'printf "xxLinux version 6.12.1 (a@b)\\nxx" > "$3/Image"; cp "$3/Image" "$3/vmlinux"\n'
    )
    path.chmod(0o755)


def calls(root: Path) -> int:
    path = root.parent / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (images.agent, "guest_images/agent"),
        (images.plugin, "qemu_model/plugin"),
    ],
)
def test_small_images_are_built_when_their_sources_change(
    root: Path, tmp_path: Path, build: Callable[[Cache, SilentProgress], Path], name: str
) -> None:
    cache = Cache(tmp_path / "cache")
    first = build(cache, SilentProgress())
    assert first.read_text() == "built\n"
    assert (build(cache, SilentProgress()), calls(root)) == (first, 1)
    (root / name / "a.c").write_text("int b;\n")
    second = build(cache, SilentProgress())
    assert second != first
    assert calls(root) == 2
    assert first.exists()


@pytest.mark.parametrize(
    ("makefile", "words"),
    [
        (
            "all:\n\t@echo 'a.c:1: error: bad'; false\n",
            "the plugin failed: a.c:1: error: bad; log: ",
        ),
        ("all:\n", "the plugin's Makefile left no libhdbss.so; log: "),
    ],
)
def test_failed_build(root: Path, tmp_path: Path, makefile: str, words: str) -> None:
    (root / "qemu_model/plugin/Makefile").write_text(makefile)
    with pytest.raises(InfrastructureError, match=words) as caught:
        images.plugin(Cache(tmp_path / "cache"), SilentProgress())
    log = Path(str(caught.value).rpartition("log: ")[2])
    assert log.name == "build.log"
    assert log.is_file()


def test_kernel_variants(root: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    default = images.kernel(cache, SilentProgress())
    assert (default.cap, default.cmdline) == (245, ())
    assert default.description.startswith("Linux 6.12.1, default build")
    assert default.vmlinux is not None
    # The source and object trees have done their work; the configuration is kept.
    left = sorted(path.name for path in default.image.parent.iterdir())
    assert left == ["Image", "config", "kvm-cap", "vmlinux"]
    debug = images.kernel(cache, SilentProgress(), "debug")
    arguments = (tmp_path / "arguments").read_text().split()
    assert arguments[0].endswith("linux-source-6.12.tar.xz")
    assert arguments[1].endswith("patches/6.12")
    assert arguments[3].endswith("debug.config")
    assert "page_poison=1" in debug.cmdline
    assert images.kernel(cache, SilentProgress()) == default
    assert calls(root) == 2


def test_the_kernel_with_seeded_bugs_has_both_sets_of_patches(root: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    kernel = root / "guest_images/kernel"
    (kernel / "bugs").mkdir()
    (kernel / "bugs/0001-a.patch").write_text("bug")
    copied, progress = tmp_path / "copied", Lines()
    recipe(root, f'for p in "$2"/*; do echo "$(basename "$p") $(cat "$p")" >> {copied}; done; '
                 'grep -c . "$2"/*1-a.patch | wc -l > "$3/kvm-cap"')  # fmt: skip
    found = images.kernel(cache, progress, "bugs")
    series = ["0-0001-a.patch patch", "1-0001-a.patch bug"]
    # The default kernel is made on the way.
    assert copied.read_text().splitlines() == ["0001-a.patch patch", *series]
    assert [line.partition(";")[0] for line in progress.lines] == [
        "building the default and the bugs kernel, some minutes"
    ]
    assert found.cap == 2 and found.cmdline == () and "seeded bugs" in found.description
    default = images.kernel(cache, progress)
    assert default.cap == 1 and calls(root) == 2
    for image in (found.image, default.image):
        assert sorted(path.name for path in image.parent.iterdir()) == [
            *("Image", "kvm-cap", "vmlinux")
        ]
    (kernel / "bugs/0001-a.patch").write_text("another bug")
    images.kernel(cache, progress)  # the series itself is clean of them
    assert calls(root) == 2
    copied.unlink()
    images.kernel(cache, progress, "bugs")
    assert calls(root) == 3 and len(copied.read_text().splitlines()) == 2
    assert progress.lines[1].startswith("building the bugs kernel, ")


@pytest.mark.parametrize("change", ["config", "patches/6.12/0002-b.patch", "build.sh", "tarball"])
def test_kernel_is_rebuilt_when_what_it_is_made_from_changes(
    root: Path, tmp_path: Path, change: str
) -> None:
    cache = Cache(tmp_path / "cache")
    images.kernel(cache, SilentProgress())
    if change == "tarball":
        images.tarball().write_text("another tarball")
    else:
        with (root / "guest_images/kernel" / change).open("a") as file:
            file.write("# changed\n")
    images.kernel(cache, SilentProgress())
    assert calls(root) == 2


def test_debug_fragment_does_not_rebuild_the_default_kernel(root: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    images.kernel(cache, SilentProgress())
    (root / "guest_images/kernel/debug.config").write_text("CONFIG_PROVE_RCU=y\n")
    images.kernel(cache, SilentProgress())
    assert calls(root) == 1


def test_interrupted_kernel_build_is_resumed(root: Path, tmp_path: Path) -> None:
    cache, progress = Cache(tmp_path / "cache"), Lines()
    recipe(root, 'echo 1 > "$3/kvm-cap"; test -f "$3/build.log" || { echo > "$3/build.log"; '
                 f"kill -INT {os.getpid()}; sleep 20; }}")  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        images.kernel(cache, progress)
    found = images.kernel(cache, progress)
    assert found.image.is_file()
    assert [line.split()[0] for line in progress.lines] == ["building", "resuming"]


def test_a_tree_that_is_half_removed_is_not_a_whole_one(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while source and objects are removed: the next build unpacks them anew."""
    recipe(root, 'echo 1 > "$3/kvm-cap"; mkdir -p "$3/src"; echo x > "$3/src/.hdbss-parts"')

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", interrupted)
        images.kernel(Cache(tmp_path / "cache"), SilentProgress())
    (left,) = (tmp_path / "cache").glob("*/*.partial/src")
    assert list(left.iterdir()) == []
    assert images.kernel(Cache(tmp_path / "cache"), SilentProgress()).image.is_file()


def test_kernel_errors(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    recipe(root, 'echo "kernel: the build failed: a.c: error: x (all of it: y)" >&2; exit 1')
    with pytest.raises(InfrastructureError, match=r"kernel failed: .*a\.c: error: x .* log: "):
        images.kernel(cache, SilentProgress())
    recipe(root, "true")
    with pytest.raises(InfrastructureError, match="the kernel build left no kvm-cap"):
        images.kernel(cache, SilentProgress())
    recipe(root, 'echo many > "$3/kvm-cap"')
    with pytest.raises(InfrastructureError, match="kvm-cap holds no number: remove"):
        images.kernel(cache, SilentProgress())
    recipe(root, 'echo 0 > "$3/kvm-cap"')
    assert images.kernel(cache, SilentProgress()).cap is None
    monkeypatch.setattr(images, "_KERNEL_SPACE", 1 << 60)
    (root / "guest_images/kernel/config").write_text("")
    with pytest.raises(InfrastructureError, match="not enough space for a kernel build"):
        images.kernel(cache, SilentProgress())
    images.tarball().unlink()
    with pytest.raises(InfrastructureError, match=r"is missing: apt install linux-source-6\.12"):
        images.kernel(cache, SilentProgress())


@pytest.mark.parametrize("free", [900, 1100])
def test_a_kernel_build_needs_a_gigabyte(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=free << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    if free > 1024:
        assert images.kernel(Cache(tmp_path / "cache"), SilentProgress()).image.is_file()
    else:
        with pytest.raises(InfrastructureError, match="900 MiB are free, 1024 MiB are needed"):
            images.kernel(Cache(tmp_path / "cache"), SilentProgress())


def test_no_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "ROOT", tmp_path)
    with pytest.raises(InfrastructureError, match="run hdbss from its source tree"):
        images.agent(Cache(tmp_path), SilentProgress())


def test_missing_tools_make_one_apt_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfrastructureError) as caught:
        tools.require(tools.host_tools())
    assert str(caught.value) == (
        "missing on this host: make, cc, pkg-config, glib-2.0: "
        "apt install make gcc libc6-dev pkg-config libglib2.0-dev"
    )
    with pytest.raises(InfrastructureError, match="is the compiler complete"):
        tools.compiler_version("cc")


def test_cross_compile_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSS_COMPILE", "/opt/x/arm64-")
    assert [tool.name for tool in tools.cross_tools()] == ["make", "/opt/x/arm64-gcc"]


def arm64_image(path: Path, flags: int = 2, version: str = "6.12.1") -> Path:
    head = bytearray(0x1000)
    head[0x18], head[0x38:0x3C] = flags, b"ARM\x64"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(head) + f"Linux version {version} (a@b) #1\n".encode())
    return path


def vmlinux(path: Path, version: str = "6.12.1", machine: bytes = b"\xb7\x00") -> Path:
    head = b"\x7fELF" + bytes(14) + machine
    path.write_bytes(head + f"Linux version {version} (a@b) #1\n".encode())
    return path


def test_foreign_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, elf = arm64_image(tmp_path / "Image"), vmlinux(tmp_path / "vmlinux")
    monkeypatch.chdir(tmp_path)
    found = images.foreign_kernel(Path("Image"), Path("vmlinux"))
    assert (found.image, found.vmlinux, found.cap) == (image, elf, None)
    assert found.description == "Linux 6.12.1, Image"
    assert images.foreign_kernel(image, None).vmlinux is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x1f\x8b" + bytes(100), "is compressed"),
        (b"MZ\0\0zimg" + bytes(100), "is an EFI zboot image"),
        (b"\x7fELF" + bytes(100), "is an ELF file"),
        (bytes(0x202) + b"HdrS", "is an x86 kernel"),
        (b"hello", "is not an arm64 kernel Image: give arch/arm64/boot/Image"),
        (b"", "is not an arm64 kernel Image"),
        (bytes(0x18) + b"\x01" + bytes(0x1F) + b"ARM\x64", "is a big-endian kernel"),
    ],
)
def test_not_an_image(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "Image"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        images.foreign_kernel(path, None)


def test_image_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*none: No such file"):
        images.foreign_kernel(tmp_path / "none", None)
    with pytest.raises(UsageError, match="is a directory"):
        images.foreign_kernel(tmp_path, None)
    if os.geteuid() != 0:
        path = arm64_image(tmp_path / "Image")
        path.chmod(0)
        with pytest.raises(UsageError, match="Permission denied"):
            images.foreign_kernel(path, None)


def test_vmlinux_that_does_not_belong(tmp_path: Path) -> None:
    image = arm64_image(tmp_path / "Image")
    with pytest.raises(InfrastructureError, match=r"does not match .* of different builds"):
        images.foreign_kernel(image, vmlinux(tmp_path / "vmlinux", "6.13.0"))
    with pytest.raises(UsageError, match="is not an arm64 vmlinux"):
        images.foreign_kernel(image, vmlinux(tmp_path / "vmlinux", machine=b"\x3e\x00"))
    with pytest.raises(UsageError, match="is not an arm64 vmlinux"):
        images.foreign_kernel(image, image)


def tree(path: Path, header: Path, text: str = "") -> Path:
    arm64_image(path / "arch/arm64/boot/Image")
    vmlinux(path / "vmlinux")
    (path / ".config").write_text("CONFIG_KVM=y\n")
    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text(f"#define KVM_CAP_X 1\n{text}")
    return path


CAP = "#define KVM_CAP_ARM_HW_DIRTY_STATE_TRACK 245\n"


def test_built_tree(tmp_path: Path) -> None:
    linux = tree(tmp_path / "linux", tmp_path / "linux/include/uapi/linux/kvm.h", CAP)
    found = images.kernel_from_tree(linux)
    assert (found.image, found.cap) == (linux / "arch/arm64/boot/Image", 245)
    assert found.vmlinux == linux / "vmlinux"


def test_a_comment_behind_the_number_is_none_of_it(tmp_path: Path) -> None:
    text = CAP.replace("245", "245 /* as in v3 */")
    linux = tree(tmp_path / "linux", tmp_path / "linux/include/uapi/linux/kvm.h", text)
    assert images.kernel_from_tree(linux).cap == 245


def test_separate_object_directory(tmp_path: Path) -> None:
    source = tmp_path / "source"
    objects = tree(tmp_path / "objects", source / "include/uapi/linux/kvm.h")
    (objects / "source").symlink_to(source)
    assert images.kernel_from_tree(objects).cap is None


def test_trees_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        images.kernel_from_tree(tmp_path / "none")
    with pytest.raises(UsageError, match=r"Image is missing: build it first \(make ARCH=arm64"):
        images.kernel_from_tree(tmp_path)
    header = tmp_path / "include/uapi/linux/kvm.h"
    tree(tmp_path, header)
    (tmp_path / ".config").write_text("# CONFIG_KVM is not set\n")
    with pytest.raises(UsageError, match="without CONFIG_KVM=y"):
        images.kernel_from_tree(tmp_path)
    (tmp_path / ".config").unlink()
    header.unlink()
    with pytest.raises(UsageError, match="it is no kernel source tree"):
        images.kernel_from_tree(tmp_path)


def test_doctor_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(images, "_USR_SRC", tmp_path)
    checks = {check.name: check for check in examine(Cache(tmp_path / "cache"))}
    assert str(checks["flex"]) == (
        "MISSING flex: not found, needed for the kernel: apt install flex"
    )
    assert str(checks["kernel source"]).endswith("not installed: apt install linux-source-6.12")
    qemu = checks["QEMU with plugin API 7"]
    assert not qemu.good
    assert "there is no apt-get on this host" in str(qemu)
    gdb = checks["gdb-multiarch"]
    assert str(gdb) == (
        "absent  gdb-multiarch: not found, needed for --mode gdb and hdbss shell: "
        "apt install gdb-multiarch"
    )
    assert [check.name for check in checks.values() if not check.needed] == [gdb.name]
    assert checks["Python"].good
    assert not (tmp_path / "cache").exists()


def test_doctor_line_of_something_good() -> None:
    assert str(Check("x", True, "here", "do this")) == "ok      x: here"
