# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding and fetching QEMU, with fake QEMUs and a fake apt."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qemu_model.errors import InfrastructureError, UsageError
from qemu_model.machine import fetch, qemu
from qemu_model.machine.cache import Cache
from qemu_model.machine.progress import SilentProgress

CC = shutil.which("cc") or "cc"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def fake_qemu(path: Path, version: str, api: int | None) -> Path:
    """A QEMU that answers --version and refuses the probe as the real one does."""
    refusal = (
        "-plugin: invalid option"
        if api is None
        else "Could not load plugin probe.so: plugin requires API version 1000000, "
        f"but this QEMU supports only up to version {api}"
    )
    return script(
        path,
        f'case "$1" in --version) echo "QEMU emulator version {version} (Debian)";;\n'
        f'*) echo "qemu-system-aarch64: {refusal}" >&2; exit 1;; esac',
    )


@pytest.fixture
def path_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds a directory of fakes, the shell's tools and the compiler, no QEMU."""
    fakes, tools = tmp_path / "fakes", tmp_path / "tools"
    fakes.mkdir()
    tools.mkdir()
    for name in ("sh", "cc", "as", "ld", "cp", "mkdir", "touch", "cat", "echo"):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    monkeypatch.setenv("PATH", f"{fakes}:{tools}")
    return fakes


def test_identify_reads_version_and_api(tmp_path: Path) -> None:
    program = fake_qemu(tmp_path / "q", "11.1.3", 7)
    found = qemu.identify((str(program),), "--qemu")
    assert found == qemu.Qemu((str(program),), "11.1.3", 7, "--qemu")
    assert found.program == program


def test_the_program_of_a_fetched_one_is_not_its_loader(tmp_path: Path) -> None:
    usr = tmp_path / "usr"
    loader = script(usr / "lib64" / "ld-linux-x86-64.so.2", "")
    program = script(usr / "bin" / qemu.PROGRAM, "")
    (usr / "lib" / "x86_64-linux-gnu").mkdir(parents=True)
    found = qemu.Qemu(fetch.command(tmp_path), "11.1.3", 7, "cache")
    assert found.argv_prefix[0] == str(loader)
    assert found.program == program


def test_identify_without_plugins(tmp_path: Path) -> None:
    assert qemu.identify((str(fake_qemu(tmp_path / "q", "7.2", None)),), "x").plugin_api is None


def test_not_a_qemu(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="is not a working QEMU: hello"):
        qemu.identify((str(script(tmp_path / "q", "echo hello")),), "x")


def test_hanging_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "_START_LIMIT", 0.2)
    with pytest.raises(InfrastructureError, match="did not end within"):
        qemu.identify((str(script(tmp_path / "q", "exec sleep 60")),), "x")


def test_no_compiler(tmp_path: Path, path_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(path_dir))
    with pytest.raises(InfrastructureError, match="no C compiler: apt install"):
        qemu.probe_library(tmp_path)


def test_broken_compiler(tmp_path: Path, path_dir: Path) -> None:
    script(path_dir / "cc", "echo broken; exit 1")
    with pytest.raises(InfrastructureError, match="cannot compile a plugin: broken"):
        qemu.probe_library(tmp_path)


def test_given_qemu(tmp_path: Path) -> None:
    good = fake_qemu(tmp_path / "good", "11.1.3", 7)
    assert qemu.find_qemu(Cache(tmp_path), SilentProgress(), good).origin == "--qemu"
    with pytest.raises(UsageError, match="no such file"):
        qemu.given_qemu(tmp_path / "missing")
    with pytest.raises(UsageError, match="no such file"):
        qemu.given_qemu(tmp_path)
    good.chmod(0o644)
    with pytest.raises(UsageError, match="not executable"):
        qemu.given_qemu(good)


@pytest.mark.parametrize(("api", "has"), [(1, "plugin API 1"), (None, "no plugins")])
def test_given_qemu_too_old(tmp_path: Path, api: int | None, has: str) -> None:
    old = fake_qemu(tmp_path / "old", "7.2.22", api)
    with pytest.raises(InfrastructureError, match=f"is QEMU 7.2.22 with {has}; .* API 7: install"):
        qemu.given_qemu(old)


def test_an_old_one_will_do_for_the_gdbstub(tmp_path: Path, path_dir: Path) -> None:
    (tmp_path / "tools" / "cc").unlink()  # nothing is compiled to ask it
    old = fake_qemu(path_dir / qemu.PROGRAM, "7.2.22", 1)
    found = qemu.find_any_qemu(Cache(tmp_path / "cache"), SilentProgress())
    assert found == qemu.Qemu((str(old),), "7.2.22", None, "PATH")
    given = fake_qemu(tmp_path / "given", "8.0", 1)
    found = qemu.find_any_qemu(Cache(tmp_path / "cache"), SilentProgress(), given)
    assert (found.version, found.origin) == ("8.0", "--qemu")
    with pytest.raises(InfrastructureError, match="with --mode gdb, which is slower, this one"):
        (tmp_path / "tools" / "cc").symlink_to(CC)
        qemu.find_qemu(Cache(tmp_path / "cache"), SilentProgress(), given)


def test_no_qemu_for_the_gdbstub(tmp_path: Path, path_dir: Path) -> None:
    with pytest.raises(InfrastructureError, match="no qemu-system-aarch64: apt-get install") as no:
        qemu.find_any_qemu(Cache(tmp_path / "cache"), SilentProgress())
    assert "\n" not in str(no.value)
    with pytest.raises(InfrastructureError, match="on PATH: apt-get install qemu-system-arm"):
        qemu.installed_any_qemu()


def test_path_comes_first(tmp_path: Path, path_dir: Path) -> None:
    fake_qemu(path_dir / qemu.PROGRAM, "11.1.3", 7)
    found = qemu.find_qemu(Cache(tmp_path / "cache"), SilentProgress())
    assert (found.origin, found.argv_prefix) == ("PATH", (str(path_dir / qemu.PROGRAM),))


def test_nothing_found_and_nothing_to_fetch_with(tmp_path: Path, path_dir: Path) -> None:
    fake_qemu(path_dir / qemu.PROGRAM, "7.2.22", 1)
    with pytest.raises(InfrastructureError) as caught:
        qemu.find_qemu(Cache(tmp_path / "cache"), SilentProgress())
    text = str(caught.value)
    assert "is QEMU 7.2.22 with plugin API 1" in text
    assert "there is no apt-get on this host" in text
    assert "install QEMU 11.1 or newer" in text
    assert "\n" not in text


def fake_apt(path_dir: Path, tmp_path: Path, update: str = "true", api: int = 7) -> Path:
    """An apt whose only package is a tree with a loader and a QEMU; returns its log."""
    log = tmp_path / "apt.calls"
    loader = tmp_path / "deb/usr/lib64/ld-linux-fake.so.2"
    # The loader gets: --library-path P --argv0 N QEMU -L DIR ARG...
    script(loader, 'shift 4; program=$1; shift 3; exec "$program" "$@"')
    fake_qemu(tmp_path / "deb/usr/bin/qemu-system-aarch64", "11.1.3", api).chmod(0o6755)
    (tmp_path / "deb/usr/lib/fake-linux-gnu").mkdir(parents=True)
    script(
        path_dir / "apt-get",
        f'echo "$@" >> {log}\n'
        'if [ "$1" = indextargets ]; then echo "http://mirror.invalid/debian/ bookworm"; exit; fi\n'
        "dir=${APT_CONFIG%/first.conf}\n"
        f'cat "$dir/sources.list" >> {log}\n'
        f'if [ "$2" = update ]; then {update}; else touch "$dir/cache/archives/q.deb"; fi',
    )
    script(path_dir / "dpkg-deb", f'cp -a {tmp_path}/deb/. "$3"')
    return log


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, keyring = tmp_path / "os-release", tmp_path / "keyring.gpg"
    release.write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    keyring.write_text("")
    monkeypatch.setattr(fetch, "_OS_RELEASE", release)
    monkeypatch.setattr(fetch, "_KEYRINGS", (keyring,))


@pytest.mark.usefixtures("debian")
def test_fetches_once_into_the_cache(tmp_path: Path, path_dir: Path) -> None:
    log = fake_apt(path_dir, tmp_path)
    cache = Cache(tmp_path / "cache")
    first = qemu.find_qemu(cache, SilentProgress())
    calls = log.read_text()
    assert (first.origin, first.plugin_api) == ("fetched", 7)
    for suite in ("trixie", "trixie-backports"):
        assert f"keyring.gpg] http://mirror.invalid/debian/ {suite} main\n" in calls
    second = qemu.find_qemu(cache, SilentProgress())
    assert second.origin == "cache"
    assert second.argv_prefix == first.argv_prefix
    assert log.read_text() == calls
    entry = cache.find(fetch.KIND, fetch.key())
    assert entry is not None
    assert (entry / "packages.txt").read_text() == "q.deb\n"
    assert not (entry / "apt").exists()
    # Packages may hold set-user-id programs; the cache must not.
    assert (entry / "usr/bin/qemu-system-aarch64").stat().st_mode & 0o7777 == 0o755


@pytest.mark.usefixtures("debian")
def test_apt_failure_is_one_line_with_its_reason(tmp_path: Path, path_dir: Path) -> None:
    fake_apt(path_dir, tmp_path, update="echo 'E: The repository is gone'; exit 100")
    with pytest.raises(InfrastructureError) as caught:
        qemu.find_qemu(Cache(tmp_path / "cache"), SilentProgress())
    assert "apt-get update for QEMU failed: The repository is gone; log: " in str(caught.value)
    assert "install QEMU 11.1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("debian")
def test_incomplete_packages_are_not_published(tmp_path: Path, path_dir: Path) -> None:
    fake_apt(path_dir, tmp_path)
    (tmp_path / "deb/usr/bin/qemu-system-aarch64").unlink()
    cache = Cache(tmp_path / "cache")
    with pytest.raises(InfrastructureError, match="does not hold a complete QEMU"):
        qemu.find_qemu(cache, SilentProgress())
    assert cache.find(fetch.KIND, fetch.key()) is None


@pytest.mark.usefixtures("debian")
def test_fetched_qemu_that_does_not_fit_is_not_fetched_again(
    tmp_path: Path, path_dir: Path
) -> None:
    log = fake_apt(path_dir, tmp_path, api=8)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(InfrastructureError, match="plugin API 8, fetched into the cache"):
        qemu.find_qemu(cache, SilentProgress())
    calls = log.read_text()
    with pytest.raises(InfrastructureError, match="to have it fetched anew"):
        qemu.find_qemu(cache, SilentProgress())
    assert log.read_text() == calls


@pytest.mark.usefixtures("debian")
def test_missing_keyring(tmp_path: Path, path_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_apt(path_dir, tmp_path)
    monkeypatch.setattr(fetch, "_KEYRINGS", (tmp_path / "none.gpg",))
    with pytest.raises(InfrastructureError, match="debian-archive-keyring is missing: apt install"):
        qemu.find_qemu(Cache(tmp_path / "cache"), SilentProgress())


def test_repository_is_the_hosts_own() -> None:
    targets = "http://s.invalid/sec bookworm-security\nfile:/srv/debian bookworm\n"
    assert fetch.repository(targets, "ID=debian\nVERSION_CODENAME=bookworm\n") == "file:/srv/debian"
    trixie = "http://a.invalid/d trixie-backports\n"
    assert fetch.repository(trixie, "ID=x\nID_LIKE=debian\n") == "http://a.invalid/d"
    with pytest.raises(fetch.CannotFetch, match="not a Debian-family host"):
        fetch.repository(targets, "ID=fedora\n")
    with pytest.raises(fetch.CannotFetch, match="knows no Debian repository"):
        fetch.repository("http://u.invalid/ noble\n", "ID=ubuntu\nID_LIKE=debian\n")


def test_private_apt_leaves_the_hosts_hooks_out(tmp_path: Path) -> None:
    """With the real apt-config, if there is one: no hook of the host survives."""
    if shutil.which("apt-config") is None:
        pytest.skip("no apt on this host")
    if not any(path.is_file() for path in fetch._KEYRINGS):
        pytest.skip("no Debian keyring on this host")
    env = fetch._configure(tmp_path, "http://mirror.invalid/debian")

    dump = subprocess.run(
        ["apt-config", "dump"], env=env, capture_output=True, text=True, check=True
    ).stdout
    assert "Invoke:: " not in dump
    assert f'Dir::State::lists "{tmp_path}/lists";' in dump
    assert f'Dir::Etc::sourcelist "{tmp_path}/sources.list";' in dump
