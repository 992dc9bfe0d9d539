# SPDX-License-Identifier: GPL-2.0-or-later
"""Run directories: whose place is taken, and whose is not."""

import shutil
from pathlib import Path

import pytest

from qemu_model.errors import UsageError
from qemu_model.rundir import in_use, run_directory
from tests.unit.fake_run import below


def test_a_kept_run_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    for _ in range(2):
        with run_directory(tmp_path / "keep", tmp_path, "a.run", "mark") as directory:
            assert directory == tmp_path / "keep" / "a.run" and below(directory) == []
            (directory / "mark").touch()


def test_a_directory_that_is_no_run_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "a.run").mkdir()
    (tmp_path / "a.run" / "thesis").touch()
    with (
        pytest.raises(UsageError, match="is no run directory"),
        run_directory(tmp_path, tmp_path, "a.run", "mark"),
    ):
        pass
    assert below(tmp_path / "a.run") == ["thesis"]


def test_without_a_mark_no_directory_is_replaced(tmp_path: Path) -> None:
    with run_directory(tmp_path, tmp_path, "a.run", None) as directory:
        (directory / "file").touch()
    with (
        pytest.raises(UsageError, match="is not empty: name another one"),
        run_directory(tmp_path, tmp_path, "a.run", None),
    ):
        pass
    assert below(directory) == ["file"]


@pytest.mark.parametrize("mark", [True, False])
def test_a_run_that_goes_on_keeps_its_place(tmp_path: Path, mark: bool) -> None:
    """Two commands with the same --keep: the second one would spoil what the first one sees."""
    with run_directory(tmp_path, tmp_path, "a.run", "mark") as directory:
        if mark:
            (directory / "mark").touch()
        with (
            pytest.raises(UsageError, match="is that of a run that goes on; choose another DIR"),
            run_directory(tmp_path, tmp_path, "a.run", "mark"),
        ):
            pass
        assert below(directory) == ["mark"] * mark


def test_where_nothing_is_kept_every_run_has_a_directory_of_its_own(tmp_path: Path) -> None:
    with (
        run_directory(None, tmp_path / "runs", "a.run", "mark") as first,
        run_directory(None, tmp_path / "runs", "a.run", "mark") as second,
    ):
        assert first != second and first.parent == second.parent == tmp_path / "runs"


def test_two_commands_do_not_clear_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large run takes a while to remove."""
    with run_directory(tmp_path, tmp_path, "a.run", "mark") as directory:
        (directory / "mark").touch()
    refused: list[str] = []
    remove = shutil.rmtree

    def rmtree(path: Path, ignore_errors: bool) -> None:
        try:
            with run_directory(tmp_path, tmp_path, "a.run", "mark"):
                pass
        except UsageError as error:
            refused.append(str(error))
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with run_directory(tmp_path, tmp_path, "a.run", "mark"):
        assert len(refused) == 1 and "a run that goes on" in refused[0]


def test_a_directory_that_cannot_be_opened_is_left_alone(tmp_path: Path) -> None:
    """Removed by another command meanwhile, or made by another user."""
    assert in_use(tmp_path / "gone")
    assert not in_use(tmp_path)
