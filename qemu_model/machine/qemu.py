# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU whose plugin API fits: the user's, the one on PATH, the cached one, or a fetched one."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine import fetch
from qemu_model.machine.cache import Cache
from qemu_model.machine.progress import Progress

PROGRAM = "qemu-system-aarch64"
#: The plugin API version (``qemu_plugin_version``) that our plugin is written for.
PLUGIN_API = 7
ANY_ADVICE = "apt-get install qemu-system-arm"
ADVICE = (
    "install QEMU 11.1 or newer built with plugins (Debian 13: apt install -t trixie-backports "
    f"qemu-system-arm), or give one with --qemu /path/to/{PROGRAM}"
)
_START_LIMIT = 30.0
_VERSION = re.compile(r"^QEMU emulator version (\S+)")
_SUPPORTS = re.compile(r"this QEMU supports only up to version (\d+)")
#: No QEMU will ever have this plugin API, so the refusal names what it does have.
_PROBE = "int qemu_plugin_version = 1000000; int qemu_plugin_install(void) { return -1; }\n"


@dataclass(frozen=True)
class Qemu:
    """A QEMU that can be started.

    ``argv_prefix`` is the command without machine options, ``version`` as printed by
    ``--version`` ("11.1.3"), ``plugin_api`` the newest plugin API version it has (None:
    built without plugins), ``origin`` says where it was found.
    """

    argv_prefix: tuple[str, ...]
    version: str
    plugin_api: int | None
    origin: str

    @property
    def program(self) -> Path:
        """QEMU itself; ``argv_prefix[0]`` may be the loader that starts it."""
        paths = map(Path, self.argv_prefix)
        named = (path for path in paths if path.name == PROGRAM and path.is_absolute())
        return next(named, Path(self.argv_prefix[0]))


def _output(argv: Sequence[str]) -> str:
    """Return what a short-lived command prints; raises InfrastructureError if it hangs."""
    try:
        result = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_START_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(
            f"{' '.join(argv)} did not end within {_START_LIMIT:.0f} s"
        ) from error
    except OSError as error:
        raise InfrastructureError(f"cannot start {argv[0]}: {error.strerror}") from error
    return result.stdout.decode(errors="replace")


def probe_library(directory: Path) -> Path:
    """Compile the probe plugin into ``directory``.

    Raises InfrastructureError if there is no working C compiler.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise InfrastructureError("there is no C compiler: apt install gcc libc6-dev")
    source, library = directory / "probe.c", directory / "probe.so"
    source.write_text(_PROBE)
    text = _output([compiler, "-shared", "-fPIC", "-o", str(library), str(source)])
    if not library.exists():
        raise InfrastructureError(f"{compiler} cannot compile a plugin: {text.strip()[-300:]}")
    return library


def identify(argv_prefix: Sequence[str], origin: str, plugins: bool = True) -> Qemu:
    """Ask a QEMU for its version and its plugin API, without starting a machine.

    The API version is learned from the refusal of a plugin that wants an impossible
    one: QEMU checks it before the plugin runs.  Takes about 0.1 s and a C compiler; not
    done unless ``plugins`` matter.  Raises InfrastructureError if the command is no QEMU.
    """
    text = _output([*argv_prefix, "--version"])
    match = _VERSION.search(text)
    if match is None:
        raise InfrastructureError(f"{argv_prefix[0]} is not a working QEMU: {_first(text)}")
    if not plugins:
        return Qemu(tuple(argv_prefix), match[1], None, origin)
    with tempfile.TemporaryDirectory(prefix="hdbss-probe-") as directory:
        library = probe_library(Path(directory))
        text = _output([*argv_prefix, "-M", "none", "-display", "none", "-nodefaults",
                        "-plugin", str(library)])  # fmt: skip
    supports = _SUPPORTS.search(text)
    return Qemu(
        tuple(argv_prefix), match[1], int(supports[1]) if supports is not None else None, origin
    )


def _first(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no output")[:200]


def _misfit(qemu: Qemu) -> str:
    has = "no plugins" if qemu.plugin_api is None else f"plugin API {qemu.plugin_api}"
    return f"{qemu.program} is QEMU {qemu.version} with {has}"


class NoPluginQemu(InfrastructureError):
    """There is no QEMU whose plugin API fits, and none can be fetched."""


def given_qemu(path: Path, plugins: bool = True) -> Qemu:
    """Check the QEMU of ``--qemu``.

    Raises UsageError if ``path`` is no program, InfrastructureError if it is no QEMU or
    (unless ``plugins`` are not needed) if its plugin API is not PLUGIN_API.
    """
    if not path.is_file():
        raise UsageError(f"--qemu {path}: no such file")
    if shutil.which(str(path.absolute())) is None:
        raise UsageError(f"--qemu {path}: not executable")
    qemu = identify((str(path.absolute()),), "--qemu", plugins)
    if plugins and qemu.plugin_api != PLUGIN_API:
        raise InfrastructureError(
            f"{_misfit(qemu)}; the plugin needs API {PLUGIN_API}: {ADVICE}; "
            "with --mode gdb, which is slower, this one will do"
        )
    return qemu


def installed_qemu(cache: Cache) -> tuple[Qemu | None, list[str]]:
    """Look on PATH, then in the cache; nothing is fetched.

    Returns the QEMU that fits, or None, and one phrase for each that does not.
    """
    misfits: list[str] = []
    on_path = shutil.which(PROGRAM)
    cached = cache.find(fetch.KIND, fetch.key())
    candidates: list[tuple[tuple[str, ...], str]] = []
    if on_path is not None:
        candidates.append(((on_path,), "PATH"))
    if cached is not None:
        candidates.append((fetch.command(cached), "cache"))
    for argv_prefix, origin in candidates:
        try:
            qemu = identify(argv_prefix, origin)
        except InfrastructureError as error:
            misfits.append(str(error))
            continue
        if qemu.plugin_api == PLUGIN_API:
            return qemu, misfits
        misfits.append(_misfit(qemu))
    return None, misfits


def find_qemu(cache: Cache, progress: Progress, given: Path | None = None) -> Qemu:
    """Return a QEMU whose plugin API is PLUGIN_API.

    Order: ``given`` (only that one), PATH, the cache, fetched into the cache.
    Raises UsageError for a bad ``given``, InfrastructureError with what to install.
    """
    if given is not None:
        return given_qemu(given)
    qemu, misfits = installed_qemu(cache)
    if qemu is not None:
        return qemu
    known = f"; not used: {', '.join(misfits)}" if misfits else ""
    if cache.find(fetch.KIND, fetch.key()) is not None:
        # It was fetched and does not fit: fetching it again would not help.
        raise NoPluginQemu(
            f"no QEMU with plugin API {PLUGIN_API}{known}: {ADVICE}, or remove "
            f"{cache.root / fetch.KIND} to have it fetched anew"
        )
    try:
        prefix = fetch.fetch(cache, progress)
    except fetch.CannotFetch as error:
        raise NoPluginQemu(
            f"no QEMU with plugin API {PLUGIN_API}{known}, and none can be fetched "
            f"({error}): {ADVICE}"
        ) from error
    qemu = identify(fetch.command(prefix), "fetched")
    if qemu.plugin_api != PLUGIN_API:
        raise NoPluginQemu(f"{_misfit(qemu)}, fetched into the cache: {ADVICE}")
    return qemu


def installed_any_qemu() -> Qemu:
    """The QEMU on PATH, whatever its plugins; InfrastructureError with what to install."""
    on_path = shutil.which(PROGRAM)
    if on_path is None:
        raise InfrastructureError(f"there is no {PROGRAM} on PATH: {ANY_ADVICE}")
    return identify((on_path,), "PATH", plugins=False)


def find_any_qemu(cache: Cache, progress: Progress, given: Path | None = None) -> Qemu:
    """Return a QEMU for the gdbstub: any version that has the machine (7.2 and newer).

    Order: ``given`` (only that one), PATH, and then as ``find_qemu``.
    """
    if given is not None:
        return given_qemu(given, plugins=False)
    if shutil.which(PROGRAM) is not None:
        return installed_any_qemu()
    try:
        return find_qemu(cache, progress)
    except NoPluginQemu as error:
        raise InfrastructureError(
            f"there is no {PROGRAM}: {ANY_ADVICE} (7.2 will do for --mode gdb); {error}"
        ) from error
