# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left of a memory slot that the kernel refuses."""

import errno

import pytest

from .driver import drive_slots

NO_SLOT = f"-1 {errno.EINVAL} no-slot"
NO_SNAPSHOT = f"-1 {errno.EINVAL} no-snapshot"
REFUSED = f"slot -1 {errno.EINVAL} -"
READERS = "snapshot 0\ncompare 0\nawait 0 page=0 limit=1\nprecopy 0\n"
NOTHING_TO_READ = [
    f"snapshot {NO_SLOT}", f"compare {NO_SNAPSHOT}", f"await {NO_SNAPSHOT}", f"precopy {NO_SLOT}",
]  # fmt: skip


def slot(gpa: int, pages: int = 3, words: str = "mem=anon") -> str:
    return f"slot 0 gpa={gpa} pages={pages} {words}\n"


def test_a_slot_that_is_there_can_be_read() -> None:
    """The twin of those below."""
    assert drive_slots(slot(0x1000) + "snapshot 0\ncompare 0\nprecopy 0") == [
        "slot 0 0 -", "snapshot 0 0 -", "compare 0 0 -", "precopy 0 0 -",
    ]  # fmt: skip


@pytest.mark.parametrize("words", ["mem=anon", "mem=memfd", "mem=anon lane=3"])
def test_a_refused_slot_cannot_be_read(words: str) -> None:
    assert drive_slots(slot(0x1001, words=words) + READERS) == [REFUSED, *NOTHING_TO_READ]


@pytest.mark.parametrize("pages", [2, 3])
def test_a_slot_that_was_deleted_and_then_refused_cannot_be_read(pages: int) -> None:
    """Nor what was read of it before, whether it has the same size or not."""
    said = drive_slots(slot(0x1000) + "snapshot 0\nunslot 0\n" + slot(0x1001, pages) + READERS)
    assert said == ["slot 0 0 -", "snapshot 0 0 -", "unslot 0 0 -", REFUSED, *NOTHING_TO_READ]


def test_a_slot_that_was_only_deleted_can_still_be_compared() -> None:
    said = drive_slots(slot(0x1000) + "snapshot 0\nunslot 0\ncompare 0")
    assert said[-1] == "compare 0 0 -"


def test_a_change_that_is_refused_leaves_the_slot_as_it_was() -> None:
    said = drive_slots(slot(0x1000) + "snapshot 0\n" + slot(0x1001) + "compare 0\nsnapshot 0")
    assert said == ["slot 0 0 -", "snapshot 0 0 -", REFUSED, "compare 0 0 -", "snapshot 0 0 -"]


def test_a_refused_slot_can_be_tried_again() -> None:
    said = drive_slots(slot(0x1001) + slot(0x1000) + "snapshot 0\ncompare 0")
    assert said == [REFUSED, "slot 0 0 -", "snapshot 0 0 -", "compare 0 0 -"]


def test_the_limit_of_what_waits() -> None:
    """The watchdog must not take an operation for stuck that has time left."""
    start = "start 1 read gpa=0 count=1 stride=0 limit=600000\n"
    said = drive_slots(
        start + "wait 1\nwait 1 limit=70\nrun 0 read gpa=0 count=1 stride=0\nsleep ms=9"
    )
    assert said[1:] == ["wait 600000 0 -", "wait 70 0 -", "run 60000 0 -", "sleep 9 0 -"]
