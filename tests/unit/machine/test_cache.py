# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: complete or absent, shared, resumed, and clear about trouble."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from qemu_model.errors import InfrastructureError
from qemu_model.machine.cache import Building, Cache, content_key, default_root
from qemu_model.machine.progress import SilentProgress


class Lines(SilentProgress):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def write(text: str) -> Builder:
    return Builder(text)


class Builder:
    """Writes a file and counts its calls."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.calls = 0

    def __call__(self, building: Building) -> None:
        self.calls += 1
        (building.directory / "file").write_text(self.text)


def test_root_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "hdbss"
    monkeypatch.setenv("HOME", "/home/someone")
    for invalid in ("", "relative/dir"):
        monkeypatch.setenv("XDG_CACHE_HOME", invalid)
        assert default_root() == Path("/home/someone/.cache/hdbss")


@pytest.mark.parametrize("name", ["a b", "a:b", "a\tb"])
def test_a_root_in_which_make_cannot_build(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", f"/{name}")
    with pytest.raises(InfrastructureError, match=r"make cannot build in .*: set XDG_"):
        default_root()


def test_key_depends_on_every_part_and_its_borders(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("one")
    keys = [
        content_key("a", "b"),
        content_key("ab"),
        content_key("a", b"b", ""),
        content_key("a", file),
        content_key("a", "one"),
    ]
    file.write_text("two")
    keys.append(content_key("a", file))
    assert len(set(keys)) == len(keys)
    assert content_key("a", b"b") == content_key("a", "b")


def test_key_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"cannot read .*nothing: No such file"):
        content_key(tmp_path / "nothing")


def test_builds_once(tmp_path: Path) -> None:
    cache, builder = Cache(tmp_path / "a" / "b"), write("x")
    first = cache.build("kind", "key", builder, SilentProgress())
    assert cache.build("kind", "key", builder, SilentProgress()) == first
    assert builder.calls == 1
    assert (first / "file").read_text() == "x"
    assert cache.find("kind", "key") == first
    assert cache.find("kind", "other") is None


def test_interrupted_build_is_not_published_and_is_resumed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def interrupted(building: Building) -> None:
        (building.directory / "half").write_text("1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.build("kind", "key", interrupted, SilentProgress())
    assert cache.find("kind", "key") is None

    def resumed(building: Building) -> None:
        assert (building.directory / "half").read_text() == "1"

    assert (cache.build("kind", "key", resumed, SilentProgress()) / "half").exists()


def test_leftovers_of_another_key_are_removed_unless_it_is_being_built(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for key in ("dead", "alive"):
        (tmp_path / "kind" / f"{key}.partial").mkdir(parents=True)
    with (tmp_path / "kind" / "alive.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache.build("kind", "new", write("x"), SilentProgress())
    assert not (tmp_path / "kind" / "dead.partial").exists()
    assert (tmp_path / "kind" / "alive.partial").exists()


def test_two_at_once_share_one_build(tmp_path: Path) -> None:
    cache, progress = Cache(tmp_path), Lines()
    started, go_on = threading.Event(), threading.Event()
    calls: list[str] = []

    def slow(building: Building) -> None:
        calls.append("slow")
        started.set()
        assert go_on.wait(10)

    def second(building: Building) -> None:
        calls.append("second")

    class Waiting(Lines):
        def line(self, text: str) -> None:
            super().line(text)
            go_on.set()

    progress = Waiting()
    thread = threading.Thread(target=lambda: cache.build("k", "key", slow, SilentProgress()))
    thread.start()
    assert started.wait(10)
    cache.build("k", "key", second, progress)
    thread.join(10)
    assert calls == ["slow"]
    assert progress.lines == ["k: another process is building it; waiting for it"]


def test_waiting_for_the_lock_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    with (tmp_path / "k" / "key.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InfrastructureError, match=r"another process has held .*key\.lock"):
            Cache(tmp_path).build("k", "key", write("x"), SilentProgress(), lock_limit=0.3)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on the device: free some"),
        (errno.EDQUOT, "no space left on the device: free some"),
        (errno.EACCES, "Permission denied: make it accessible"),
        (errno.EROFS, "Read-only file system: make it accessible"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_trouble_with_the_disk_is_one_line(tmp_path: Path, number: int, words: str) -> None:
    def failing(building: Building) -> None:
        raise OSError(number, os.strerror(number), str(building.directory / "file"))

    with pytest.raises(InfrastructureError, match=words) as caught:
        Cache(tmp_path).build("k", "key", failing, SilentProgress())
    assert "\n" not in str(caught.value)
    assert "k/key.partial/file" in str(caught.value)


def test_cache_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match="Not a directory"):
        Cache(tmp_path / "file").build("k", "key", write("x"), SilentProgress())


def test_really_full_disk(tmp_path: Path) -> None:
    def fill(building: Building) -> None:
        with Path("/dev/full").open("w") as full:
            full.write("x")

    with pytest.raises(InfrastructureError, match="no space left on the device"):
        Cache(tmp_path).build("k", "key", fill, SilentProgress())
