# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel, agent and plugin: built from our sources into the cache, or the user's own kernel."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import qemu_model
from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine import tools
from qemu_model.machine.build import run_step
from qemu_model.machine.cache import Building, Cache, content_key
from qemu_model.machine.command import KernelImage
from qemu_model.machine.progress import Progress

#: The project: our sources stand beside the package.
ROOT = Path(qemu_model.__file__).parents[1]
KERNEL_SOURCE = "linux-source-6.12"
_USR_SRC = Path("/usr/src")
_KERNEL_LIMIT = 2 * 3600.0
_SMALL_LIMIT = 600.0
#: Free space a kernel build needs (bytes): source 0.35 GB, objects 0.1 GB, more with debug.config.
_KERNEL_SPACE = 1 << 30
CONFORMANCE_ELF = "conformance.elf"
_PARTS = Path("src/.hdbss-parts")
"""Where build.sh notes what a complete source tree is made of."""
_KERNEL_FILES = ("Image", "vmlinux", "kvm-cap", "build.log", "config")

SERIES = "patches/6.12"


@dataclass(frozen=True)
class Variant:
    """One way of building our kernel; files and directories are those beside ``config``.

    ``more`` is a directory of patches on top of the series, for a kernel that is the
    default one otherwise: both can be made of the same objects.
    """

    fragments: tuple[str, ...] = ()
    cmdline: tuple[str, ...] = ()
    more: str = ""
    what: str = "our series"

    @property
    def patches(self) -> tuple[str, ...]:
        """The directories of its patches, in the order in which they apply."""
        return (SERIES, self.more) if self.more else (SERIES,)


VARIANTS = {
    "default": Variant(),
    # Poisoning and page allocation debugging are compiled in but off until asked for.
    "debug": Variant(("debug.config",), ("debug_pagealloc=on", "page_poison=1")),
    "bugs": Variant(more="bugs", what="our series with seeded bugs"),
}

_BANNER = re.compile(rb"Linux version (\d[^\n\0]{0,400})")
_CAP = re.compile(r"^#define\s+KVM_CAP_ARM_HW_DIRTY_STATE_TRACK\s+(\d{1,9})\b", re.MULTILINE)
_ELF_AARCH64 = b"\xb7\x00"


def tarball() -> Path:
    """Where the distribution's package puts the kernel's source."""
    return _USR_SRC / f"{KERNEL_SOURCE}.tar.xz"


def _sources(*parts: str) -> Path:
    directory = ROOT.joinpath(*parts)
    if not directory.is_dir():
        raise InfrastructureError(
            f"{directory} is missing: run hdbss from its source tree (pip install -e .)"
        )
    return directory


def _contents(directory: Path, *patterns: str) -> list[str | Path]:
    """The names and contents of files, in a fixed order, for content_key."""
    files = sorted({path for pattern in patterns for path in directory.glob(pattern)})
    parts: list[str | Path] = []
    for path in files:
        if path.is_file():
            parts += [str(path.relative_to(directory)), path]
    return parts


def _made(building: Building, what: str, source: Path, product: str, *variables: str) -> None:
    building.progress.line(f"building the {what}")
    argv = ["make", "-C", str(source), f"O={building.directory}", *variables]
    run_step(building, f"building the {what}", argv, building.directory / "build.log", _SMALL_LIMIT)
    if not (building.directory / product).is_file():
        raise InfrastructureError(
            f"the {what}'s Makefile left no {product}; log: {building.directory / 'build.log'}"
        )


def agent(cache: Cache, progress: Progress) -> Path:
    """Return the agent (a static arm64 program), built if it is not in the cache.

    Raises InfrastructureError with what to install, or with the build's log.
    """
    source, prefix = _sources("guest_images", "agent"), tools.cross_prefix()
    tools.require(tools.cross_tools())
    key = content_key(
        tools.compiler_version(f"{prefix}gcc"), *_contents(source, "*.[chS]", "Makefile")
    )

    def build(building: Building) -> None:
        _made(building, "agent", source, "init", f"CROSS_COMPILE={prefix}")

    return cache.build("agent", key, build, progress) / "init"


def plugin(cache: Cache, progress: Progress) -> Path:
    """Return the TCG plugin, built for this host if it is not in the cache.

    Raises InfrastructureError with what to install, or with the build's log.
    """
    source = _sources("qemu_model", "plugin")
    tools.require(tools.host_tools())
    key = content_key(tools.compiler_version("cc"), *_contents(source, "*.[ch]", "Makefile"))

    def build(building: Building) -> None:
        _made(building, "plugin", source, "libhdbss.so")

    return cache.build("plugin", key, build, progress) / "libhdbss.so"


def conformance(cache: Cache, progress: Progress) -> Path:
    """Return the conformance program (an ELF file for EL2), built if it is not in the cache.

    Raises InfrastructureError with what to install, or with the build's log.
    """
    source, prefix = _sources("guest_images", "conformance"), tools.cross_prefix()
    tools.require(tools.cross_tools())
    key = content_key(
        tools.compiler_version(f"{prefix}gcc"), *_contents(source, "*.[chS]", "*.mk", "Makefile")
    )

    def build(building: Building) -> None:
        _made(building, "conformance program", source, CONFORMANCE_ELF, f"CROSS_COMPILE={prefix}")

    return cache.build("conformance", key, build, progress) / CONFORMANCE_ELF


def kernel(cache: Cache, progress: Progress, variant: str = "default") -> KernelImage:
    """Return the default kernel (or another variant), built if it is not in the cache.

    Takes about 5 minutes on two cores.  An interrupted build is resumed.  One with more
    patches makes the default kernel on the way if that is not in the cache.  Raises
    InfrastructureError with what to install, or with the build's log.
    """
    chosen = VARIANTS[variant]
    recipe = _sources("guest_images", "kernel")
    if not tarball().is_file():
        raise InfrastructureError(f"{tarball()} is missing: apt install {KERNEL_SOURCE}")
    tools.require(tools.kernel_tools())
    kind, key = _kernel_place(recipe, variant)

    def build(building: Building) -> None:
        directory = building.directory
        _require_space(directory)
        default = _kernel_place(recipe, "default")
        # Its objects are most of what this one needs.
        both = chosen.more != "" and cache.find(*default) is None
        resumed = "resuming" if (directory / "build.log").exists() else "building"
        progress.line(
            f"{resumed} the {'default and the ' if both else ''}{variant} kernel, some minutes; "
            f"log: {directory / 'build.log'}"
        )
        if both:
            _run_recipe(building, recipe, "default", recipe / SERIES)
            cache.build(*default, _copying(directory), progress)
        _run_recipe(building, recipe, variant, _patches(recipe, chosen, directory))
        _tidy(directory)

    entry = cache.build(kind, key, build, progress)
    image = entry / "Image"
    return KernelImage(
        image=image,
        vmlinux=entry / "vmlinux",
        cap=_kvm_cap(entry / "kvm-cap"),
        description=f"Linux {_version(image)}, {variant} build of {KERNEL_SOURCE} + {chosen.what}",
        cmdline=chosen.cmdline,
    )


def _kernel_place(recipe: Path, variant: str) -> tuple[str, str]:
    """Kind and key of a variant in the cache."""
    chosen = VARIANTS[variant]
    stat = tarball().stat()
    key = content_key(
        # Name, size and the date dpkg has kept from the package stand for 150 MB of content.
        f"{tarball().name} {stat.st_size} {int(stat.st_mtime)}",
        variant,
        tools.compiler_version(f"{tools.cross_prefix()}gcc"),
        *_contents(
            recipe,
            *("config", "build.sh", *chosen.fragments),
            *(f"{directory}/*" for directory in chosen.patches),
        ),
    )
    return f"kernel-{variant}", key


def _require_space(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < _KERNEL_SPACE and not (directory / "build.log").exists():
        raise InfrastructureError(
            f"not enough space for a kernel build in {directory}: {free >> 20} MiB are free, "
            f"{_KERNEL_SPACE >> 20} MiB are needed; set XDG_CACHE_HOME to another disk"
        )


def _run_recipe(building: Building, recipe: Path, variant: str, patches: Path) -> None:
    """Build a variant, with these patches, out of what the directory holds."""
    directory, log = building.directory, building.directory / "build.log"
    fragments = (str(recipe / name) for name in VARIANTS[variant].fragments)
    argv = [str(recipe / "build.sh"), str(tarball()), str(patches), str(directory), *fragments]
    # build.sh writes build.log itself; recipe.log is what it says to people.
    run_step(building, f"building the {variant} kernel", argv, directory / "recipe.log",
             _KERNEL_LIMIT)  # fmt: skip
    for name in ("Image", "vmlinux", "kvm-cap"):
        if not (directory / name).is_file():
            raise InfrastructureError(f"the kernel build left no {name}; log: {log}")
    with suppress(FileNotFoundError):
        shutil.copyfile(directory / "obj" / ".config", directory / "config")


def _copying(source: Path) -> Callable[[Building], None]:
    """A builder for what has been built in ``source``."""

    def copy(building: Building) -> None:
        for name in _KERNEL_FILES:
            with suppress(FileNotFoundError):
                shutil.copy(source / name, building.directory / name)
        _tidy(building.directory)

    return copy


def _tidy(directory: Path) -> None:
    """Leave the results: source and objects have done their work."""
    # First of all: a tree that is half removed is not to be taken for a whole one.
    (directory / _PARTS).unlink(missing_ok=True)
    for path in directory.iterdir():
        if path.name not in _KERNEL_FILES:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _patches(recipe: Path, chosen: Variant, directory: Path) -> Path:
    """The directory of all patches of a variant, in the order in which they apply."""
    if len(chosen.patches) == 1:
        return recipe / chosen.patches[0]
    together = directory / "patches"
    shutil.rmtree(together, ignore_errors=True)
    together.mkdir()
    for number, name in enumerate(chosen.patches):
        for patch in (recipe / name).glob("*.patch"):
            shutil.copyfile(patch, together / f"{number}-{patch.name}")
    return together


def _kvm_cap(path: Path) -> int | None:
    """Read the number that the recipe has found in the uapi header; 0 is none."""
    text = path.read_text().strip()
    if not text.isascii() or not text.isdigit():
        raise InfrastructureError(f"{path} holds no number: remove {path.parent}")
    return int(text) or None


def _banner(path: Path) -> bytes | None:
    match = _BANNER.search(_read(path))
    return match[1] if match is not None else None


def _version(image: Path) -> str:
    banner = _banner(image)
    return banner.split()[0].decode(errors="replace") if banner else "of unknown version"


def _read(path: Path) -> bytes:
    """Read a file the user has named; raises UsageError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def check_image(path: Path) -> None:
    """Raise UsageError unless ``path`` is a little-endian arm64 kernel Image.

    Documentation/arch/arm64/booting.rst: magic "ARM\\x64" at 0x38, flags at 0x18.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory: give the file arch/arm64/boot/Image")
    head = _read(path)[:0x1000]
    advice = "give arch/arm64/boot/Image"
    if head[:2] == b"\x1f\x8b":
        raise UsageError(f"{path} is compressed: {advice}, not Image.gz")
    if head[4:8] == b"zimg":
        raise UsageError(f"{path} is an EFI zboot image: {advice}")
    if head[:4] == b"\x7fELF":
        raise UsageError(f"{path} is an ELF file: {advice}; vmlinux goes to --vmlinux")
    if head[0x202:0x206] == b"HdrS":
        raise UsageError(f"{path} is an x86 kernel: build one for arm64")
    if head[0x38:0x3C] != b"ARM\x64":
        raise UsageError(f"{path} is not an arm64 kernel Image: {advice}")
    if head[0x18] & 1:
        raise UsageError(f"{path} is a big-endian kernel: build a little-endian one")


def check_vmlinux(path: Path, image: Path) -> None:
    """Raise UsageError unless ``path`` is an arm64 ELF file, InfrastructureError unless
    ``image`` was made from it, as far as their versions tell.
    """
    head = _read(path)[:20]
    if head[:4] != b"\x7fELF" or head[18:20] != _ELF_AARCH64:
        raise UsageError(f"{path} is not an arm64 vmlinux (an ELF file)")
    ours, theirs = _banner(image), _banner(path)
    if ours is not None and theirs is not None and ours != theirs:
        raise InfrastructureError(
            f"vmlinux {path} does not match the kernel {image}: they are of different builds"
        )


def foreign_kernel(image: Path, vmlinux: Path | None) -> KernelImage:
    """Take the user's kernel; its capability number is unknown.

    Raises UsageError saying what is wrong with the files, InfrastructureError if they are
    of different builds.
    """
    check_image(image)
    if vmlinux is not None:
        check_vmlinux(vmlinux, image)
    description = f"Linux {_version(image)}, {image}"
    absolute = vmlinux.absolute() if vmlinux is not None else None
    return KernelImage(image.absolute(), absolute, None, description)


def kernel_from_tree(tree: Path) -> KernelImage:
    """Take the kernel that was built in ``tree`` (a source tree, or a directory used as O=).

    The capability number comes from the tree's own uapi header.  Raises UsageError.
    """
    if not tree.is_dir():
        raise UsageError(f"--linux {tree}: no such directory")
    image = tree / "arch" / "arm64" / "boot" / "Image"
    if not image.is_file():
        raise UsageError(
            f"{image} is missing: build it first (make ARCH=arm64 CROSS_COMPILE="
            f"{tools.cross_prefix()} Image), or give the directory that was used as O="
        )
    config = tree / ".config"
    if config.is_file() and b"\nCONFIG_KVM=y\n" not in b"\n" + _read(config):
        raise UsageError(f"{tree} is configured without CONFIG_KVM=y: switch it on and rebuild")
    # A directory used as O= holds a link to the source tree.
    headers = [tree / "include/uapi/linux/kvm.h", tree / "source/include/uapi/linux/kvm.h"]
    header = next((path for path in headers if path.is_file()), None)
    if header is None:
        raise UsageError(f"{tree} has no include/uapi/linux/kvm.h: it is no kernel source tree")
    vmlinux = tree / "vmlinux"
    found = foreign_kernel(image, vmlinux if vmlinux.is_file() else None)
    match = _CAP.search(_read(header).decode(errors="replace"))
    cap = int(match[1]) if match is not None else None
    return KernelImage(found.image, found.vmlinux, cap, f"Linux {_version(image)}, {tree}")
