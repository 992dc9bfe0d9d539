# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules for every file of the repository: a license, a length, no package registry."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 500
UNMARKED = ("LICENSE", "README.md")
KERNEL_PATCHES = ("guest_images/kernel/patches/", "guest_images/kernel/bugs/")
"""Their files become the kernel's own, which bring their license lines along."""

SPDX = "SPDX-" + "License-Identifier: "
# In two pieces, so that this file does not contain them.
REGISTRIES = tuple(
    f"{name}.{domain}"
    for name, domain in (
        ("pypi", "org"), ("pythonhosted", "org"), ("registry.npmjs", "org"), ("crates", "io"),
        ("rubygems", "org"), ("proxy.golang", "org"), ("conda.anaconda", "org"),
        ("repo.maven.apache", "org"), ("deb.debian", "org"), ("ftp.debian", "org"),
        ("security.debian", "org"), ("archive.ubuntu", "com"), ("ports.ubuntu", "com"),
        ("ghcr", "io"), ("docker", "io"),
    )
)  # fmt: skip

Tree = dict[str, str]
"""Path, relative to the repository, and text."""


def unlicensed(tree: Tree) -> list[str]:
    """Source files without a license line near their beginning."""
    return [
        path
        for path, text in tree.items()
        if path not in UNMARKED
        and not path.startswith(KERNEL_PATCHES)
        and not any(license_of(line) for line in text.splitlines()[:5])
    ]


def license_of(line: str) -> str | None:
    """The license that a line gives; ours are these two."""
    _, found, name = line.partition(SPDX)
    name = name.removesuffix("*/").strip()
    return name if found and name in ("GPL-2.0", "GPL-2.0-or-later") else None


def too_long(tree: Tree) -> list[str]:
    """Files with more lines than a reader wants, patches excepted."""
    return [
        path
        for path, text in tree.items()
        if not path.endswith(".patch") and len(text.splitlines()) > MAX_LINES
    ]


def registries(tree: Tree) -> list[tuple[str, str]]:
    """Files that name a host of packages: which one to use is the user's configuration."""
    return [(path, host) for path, text in tree.items() for host in REGISTRIES
            if host in text.lower()]  # fmt: skip


@pytest.fixture(scope="module")
def tree() -> Tree:
    """Every tracked file as it is now; what is not UTF-8 is read all the same."""
    try:
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, timeout=60, check=False
        )
    except FileNotFoundError:
        pytest.skip("git is not installed: it has the list of the files to look at")
    if listed.returncode:
        why = listed.stderr.decode(errors="replace").strip()
        pytest.skip(f"git does not list the files to look at: {why}")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    # One that was deleted, but not yet in git's index, has no text to look at.
    return {name: (ROOT / name).read_text(encoding="utf-8", errors="replace")
            for name in names if (ROOT / name).is_file()}  # fmt: skip


def test_the_list_is_that_of_this_repository(tree: Tree) -> None:
    assert {"README.md", "pyproject.toml", "qemu_model/trace.py"} <= tree.keys()


def test_every_source_file_names_its_license(tree: Tree) -> None:
    assert unlicensed(tree) == []


def test_no_file_is_too_long(tree: Tree) -> None:
    assert too_long(tree) == []


def test_no_file_names_a_package_registry(tree: Tree) -> None:
    assert registries(tree) == []


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("a.py", "", True),
        ("a.py", "x = 1\n", True),
        ("a.py", f"# {SPDX}MIT\n", True),
        ("a.py", f"# {SPDX}\n", True),
        ("a.py", "\n" * 5 + f"# {SPDX}GPL-2.0-or-later\n", True),
        ("a/LICENSE", "", True),
        ("a.py", f"# {SPDX}GPL-2.0-or-later\n", False),
        ("a.sh", f"#!/bin/sh\n# {SPDX}GPL-2.0-or-later\n", False),
        ("a.h", f"/* {SPDX}GPL-2.0 */\n", False),
        ("LICENSE", "", False),
        (f"{KERNEL_PATCHES[0]}6.12/0001-x.patch", "", False),
        (f"{KERNEL_PATCHES[1]}0001-x.patch", "", False),
    ],
)
def test_a_missing_license_is_found(path: str, text: str, found: bool) -> None:
    assert unlicensed({path: text}) == [path] * found


def test_a_long_file_is_found() -> None:
    long, short = "x\n" * (MAX_LINES + 1), "x\n" * MAX_LINES
    assert too_long({"a.c": long, "b.c": short, "c.patch": long}) == ["a.c"]


@pytest.mark.parametrize("host", REGISTRIES)
def test_a_registry_is_found(host: str) -> None:
    assert registries({"a": f"see https://{host.upper()}/x", "b": "see https://x.invalid/"}) == [
        ("a", host)
    ]
