# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetch QEMU on Debian-family hosts into the cache, without root and without touching the system.

apt is run with lists, cache and an empty package status of its own, on the
repository that the host itself uses, but for Debian 13 and its backports; the
packages are unpacked side by side and QEMU is started through their own loader,
so that it meets the C library it was built with.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
from pathlib import Path

from qemu_model.errors import InfrastructureError
from qemu_model.machine.build import run_step
from qemu_model.machine.cache import Building, Cache, content_key
from qemu_model.machine.progress import Progress

KIND = "qemu"
#: Raise it when the way of fetching changes what comes out.
_RECIPE = "1"
_SUITE = "trixie"
_BACKPORTS = f"{_SUITE}-backports"
_PACKAGE = "qemu-system-arm"
_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
_OS_RELEASE = Path("/etc/os-release")
_UPDATE_LIMIT = 300.0
_DOWNLOAD_LIMIT = 900.0
_UNPACK_LIMIT = 300.0


class CannotFetch(InfrastructureError):
    """This host is not of the kind on which QEMU can be fetched, or apt failed."""


def key() -> str:
    """The cache key: what is fetched for this kind of host."""
    return content_key(_RECIPE, _SUITE, _BACKPORTS, _PACKAGE, platform.machine())


def command(prefix: Path) -> tuple[str, ...]:
    """Return the command that starts the QEMU unpacked in ``prefix``, through its own loader.

    Raises InfrastructureError if ``prefix`` is not such a directory.
    """
    usr = prefix / "usr"
    loaders = sorted([*usr.glob("lib*/ld-linux*.so.*"), *usr.glob("lib/*/ld-linux*.so.*")])
    libraries = sorted(usr.glob("lib/*-linux-gnu"))
    qemu = usr / "bin" / "qemu-system-aarch64"
    if not loaders or not libraries or not qemu.is_file():
        raise InfrastructureError(f"{prefix} does not hold a complete QEMU: remove it")
    paths = [path for lib in libraries for path in (lib, lib / "pulseaudio") if path.is_dir()]
    return (
        str(loaders[0]),
        "--library-path",
        ":".join(str(path) for path in paths),
        "--argv0",
        qemu.name,
        str(qemu),
        "-L",
        str(usr / "share" / "qemu"),
    )


def fetch(cache: Cache, progress: Progress) -> Path:
    """Return the directory with QEMU in the cache, fetched if it is not there.

    About 40 MB are downloaded and 170 MB stored.  Raises CannotFetch with the reason.
    """
    return cache.build(KIND, key(), _build, progress)


def repository(targets: str, os_release: str) -> str:
    """Choose the address of the host's Debian repository.

    ``targets`` is what ``apt-get indextargets --format '$(REPO_URI) $(RELEASE)'`` prints,
    ``os_release`` the text of /etc/os-release.  Raises CannotFetch.
    """
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', os_release, re.MULTILINE))
    if "debian" not in (values.get("ID", ""), *values.get("ID_LIKE", "").split()):
        raise CannotFetch("this is not a Debian-family host")
    wanted = {_SUITE, _BACKPORTS, values.get("VERSION_CODENAME"), values.get("DEBIAN_CODENAME")}
    for line in targets.splitlines():
        uri, _, release = line.strip().partition(" ")
        if release in wanted and uri:
            return uri
    raise CannotFetch("apt knows no Debian repository on this host")


def check_host() -> str:
    """Return the repository's address if QEMU can be fetched on this host.

    Nothing is downloaded.  Raises CannotFetch with the reason.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise CannotFetch(f"there is no {program} on this host")
    if not any(path.is_file() for path in _KEYRINGS):
        raise CannotFetch("the package debian-archive-keyring is missing: apt install it")
    os_release = _OS_RELEASE.read_text(errors="replace") if _OS_RELEASE.is_file() else ""
    return repository(_indextargets(), os_release)


def _indextargets() -> str:
    try:
        result = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotFetch(f"apt-get does not answer: {error}") from error
    return result.stdout.decode(errors="replace")


def _configure(directory: Path, uri: str) -> dict[str, str]:
    """Write apt's private configuration; return the environment that makes apt use it."""
    keyring = next(path for path in _KEYRINGS if path.is_file())
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "status").write_text("")
    (directory / "sources.list").write_text(
        "".join(f"deb [signed-by={keyring}] {uri} {s} main\n" for s in (_SUITE, _BACKPORTS))
    )
    # The host's own settings stay in force (a proxy, for one), but not its hooks: the usual
    # container image has one that empties /var/cache/apt.  apt reads APT_CONFIG first, the
    # host's apt.conf.d next and Dir::Etc::main last, hence the two files.
    main = directory / "main.conf"
    hooks = [
        "APT::Update::Pre-Invoke",
        "APT::Update::Post-Invoke",
        "APT::Update::Post-Invoke-Success",
        "DPkg::Pre-Invoke",
        "DPkg::Post-Invoke",
        "DPkg::Pre-Install-Pkgs",
    ]
    host = Path("/etc/apt/apt.conf")
    main.write_text(
        (f'#include "{host}";\n' if host.is_file() else "")
        + "".join(f"#clear {hook};\n" for hook in hooks)
        + f'Dir::Etc::sourcelist "{directory}/sources.list";\n'
        + 'Dir::Etc::sourceparts "/dev/null";\n'
        + f'Dir::State "{directory}";\n'
        + f'Dir::State::lists "{directory}/lists";\n'
        + f'Dir::State::status "{directory}/status";\n'
        + f'Dir::Cache "{directory}/cache";\n'
        + f'Dir::Log "{directory}/log";\n'
        + 'APT::Get::List-Cleanup "0";\n'
        + 'APT::Keep-Downloaded-Packages "1";\n'
        + 'APT::Install-Recommends "0";\n'
        + 'Acquire::Retries "3";\n'
    )
    first = directory / "first.conf"
    first.write_text(f'Dir::Etc::main "{main}";\n')
    return {**os.environ, "APT_CONFIG": str(first), "LC_ALL": "C.UTF-8"}


def _explain(text: str) -> str:
    errors = [line[2:].strip() for line in text.splitlines() if line.startswith("E:")]
    return errors[0] if errors else ""


def _build(building: Building) -> None:
    uri = check_host()
    directory, log = building.directory, building.directory / "fetch.log"
    apt = directory / "apt"
    apt.mkdir(exist_ok=True)
    env = _configure(apt, uri)
    building.progress.line(f"fetching QEMU from this host's Debian repository; log: {log}")
    try:
        run_step(building, "apt-get update for QEMU", ["apt-get", "-q", "update"], log,
                 _UPDATE_LIMIT, env=env, explain=_explain)  # fmt: skip
        run_step(building, "downloading QEMU (40 MB)",
                 ["apt-get", "-q", "-y", "--download-only", "-t", _BACKPORTS, "install", _PACKAGE],
                 log, _DOWNLOAD_LIMIT, env=env, explain=_explain)  # fmt: skip
    except CannotFetch:
        raise
    except InfrastructureError as error:
        raise CannotFetch(str(error)) from error
    packages = sorted((apt / "cache" / "archives").glob("*.deb"))
    unpack = 'to=$1; shift; for deb do dpkg-deb -x "$deb" "$to" || exit; done'
    run_step(building, f"unpacking QEMU ({len(packages)} packages)",
             ["sh", "-c", unpack, "sh", str(directory), *map(str, packages)],
             log, _UNPACK_LIMIT)  # fmt: skip
    (directory / "packages.txt").write_text("".join(f"{p.name}\n" for p in packages))
    _drop_privileges(directory)
    command(directory)  # complete?
    shutil.rmtree(apt)


def _drop_privileges(directory: Path) -> None:
    """Clear set-user-id and set-group-id bits: root may be unpacking a su or a mount."""
    for path in directory.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))
