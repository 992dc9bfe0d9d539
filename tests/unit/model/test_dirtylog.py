# SPDX-License-Identifier: GPL-2.0-or-later
"""The relation between stores and reports: lost, late, spurious."""

from qemu_model.model.dirtylog import CONTENT, ENTRY, SlotLog


def log(pages: int = 16) -> SlotLog:
    """A slot that is logged since line 1 and whose content is known since line 2."""
    slot = SlotLog(0, 0x4000_0000, pages)
    slot.set_logging(1, True)
    slot.snapshot(2)
    return slot


def pages(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


def test_a_changed_page_that_the_next_read_reports_is_neither_lost_nor_late() -> None:
    slot = log()
    slot.compared(4, pages(1, 2), ran=3)
    slot.read(5, pages(1, 2), quiet=True)
    assert slot.lost() == []
    assert (slot.figures.changed, slot.figures.reported) == (2, 2)
    assert (slot.figures.late, slot.figures.spurious, slot.figures.lateness) == (0, 0, 0)


def test_a_changed_page_that_no_read_reports_is_lost() -> None:
    slot = log()
    slot.compared(4, pages(1, 2), ran=3)
    slot.read(5, pages(1), quiet=True)
    slot.read(6, pages(), quiet=True)
    (debt,) = slot.lost()
    assert (debt.page, debt.source, debt.line, debt.missed) == (2, CONTENT, 3, 2)


def test_a_page_that_only_a_later_read_reports_is_late() -> None:
    slot = log()
    slot.compared(4, pages(1), ran=3)
    slot.read(5, pages(), quiet=True)
    slot.read(6, pages(1), quiet=True)
    assert slot.lost() == []
    assert (slot.figures.late, slot.figures.lateness) == (1, 1)


def test_a_page_that_did_not_change_is_spurious_when_the_truth_is_known() -> None:
    slot = log()
    slot.compared(4, pages(1), ran=3)
    slot.read(5, pages(1, 7), quiet=True)
    slot.read(6, pages(8), quiet=False)
    assert slot.figures.spurious == 1


def test_a_report_from_before_the_change_does_not_pay_for_it() -> None:
    slot = log()
    slot.compared(4, pages(1), ran=3)
    slot.read(5, pages(1), quiet=True)
    slot.compared(7, pages(1), ran=6)
    slot.read(8, pages(), quiet=True)
    assert [debt.page for debt in slot.lost()] == [1]


def test_a_read_while_the_guest_runs_may_pay_for_the_change() -> None:
    slot = log()
    slot.read(5, pages(1), quiet=False)
    slot.compared(7, pages(1), ran=3)
    slot.read(8, pages(), quiet=True)
    assert slot.lost() == []


def test_a_read_that_is_the_first_to_overlap_the_stores_may_pay_too() -> None:
    slot = log()
    slot.read(5, pages(1), quiet=False)
    slot.compared(7, pages(1, 2), ran=5)
    slot.read(8, pages(), quiet=True)
    assert [debt.page for debt in slot.lost()] == [2]


def test_an_entry_that_no_later_read_reports_is_lost() -> None:
    slot = log()
    slot.appended(3, [4, 5], seq=99)
    slot.read(4, pages(4), quiet=True)
    (debt,) = slot.lost()
    assert (debt.page, debt.source, debt.seq) == (5, ENTRY, 99)


def test_an_entry_appended_during_a_read_is_due_in_the_next_one() -> None:
    slot = log()
    slot.appended(4, [4], seq=99)
    slot.read(4, pages(), quiet=False)
    assert slot.lost() == []
    slot.read(5, pages(4), quiet=False)
    assert (slot.lost(), slot.figures.lateness) == ([], 0)


def test_a_second_entry_during_a_read_is_not_paid_by_it() -> None:
    slot = log()
    slot.appended(3, [4], seq=98)
    slot.appended(4, [4], seq=99)
    slot.read(4, pages(4), quiet=False)
    slot.read(5, pages(), quiet=True)
    (debt,) = slot.lost()
    assert (debt.page, debt.seq) == (4, 99)


def test_a_second_entry_before_a_read_is_paid_by_it() -> None:
    slot = log()
    slot.appended(3, [4], seq=98)
    slot.appended(3, [4], seq=99)
    slot.read(4, pages(4), quiet=False)
    slot.read(5, pages(), quiet=True)
    assert slot.lost() == []


def test_an_entry_during_a_read_of_a_page_that_was_dirty_is_not_paid_by_it() -> None:
    """The read has reported the store before it; what it then made clean was dirtied again."""
    slot = log()
    slot.compared(4, pages(1, 2), ran=3)
    slot.appended(5, [1, 7], seq=99)
    slot.read(5, pages(1, 2, 7), quiet=False)
    slot.compared(7, pages(1, 2), ran=4)
    slot.read(8, pages(), quiet=True)
    assert [(debt.page, debt.source, debt.seq) for debt in slot.lost()] == [(1, ENTRY, 99)]


def test_an_entry_that_two_reads_leave_out_is_lost_although_another_one_followed() -> None:
    slot = log()
    slot.appended(3, [4], seq=98)
    slot.read(4, pages(), quiet=False)
    slot.appended(5, [4], seq=99)
    slot.read(5, pages(), quiet=False)
    assert [(debt.page, debt.seq) for debt in slot.lost()] == [(4, 98)]


def test_a_clear_pays_for_what_was_stored_since_the_read() -> None:
    """Userspace copies the page after the clear, so nobody has to tell it again."""
    slot = log()
    slot.manual = True
    slot.compared(4, pages(1, 2), ran=3)
    slot.read(5, pages(1, 2), quiet=True)
    slot.appended(6, [1, 2], seq=98)
    slot.cleared(7, pages(1))
    slot.compared(8, pages(1, 2), ran=6)
    slot.read(9, pages(), quiet=True)
    assert [(debt.page, debt.source) for debt in slot.lost()] == [(2, CONTENT), (2, ENTRY)]


def test_a_clear_does_not_pay_for_what_was_stored_after_it() -> None:
    slot = log()
    slot.manual = True
    slot.compared(4, pages(1, 2), ran=3)
    slot.read(5, pages(1, 2), quiet=True)
    slot.appended(6, [1], seq=98)  # while the clear goes on: it has made the page clean
    slot.cleared(6, pages(1, 2))
    slot.appended(7, [2], seq=99)
    slot.compared(8, pages(1, 2), ran=7)
    slot.read(9, pages(), quiet=True)
    assert [(debt.page, debt.source) for debt in slot.lost()] == [
        (1, CONTENT), (1, ENTRY), (2, CONTENT), (2, ENTRY),
    ]  # fmt: skip


def test_a_clear_may_pay_for_a_store_meanwhile_to_a_page_that_was_clean() -> None:
    """Its bit was set from the start: the clear took it after the store, and userspace copies."""
    slot = log()
    slot.manual = True
    slot.read(5, pages(1, 2), quiet=True)
    slot.appended(6, [1, 2], seq=98)
    slot.appended(6, [2], seq=99)  # this one is of after the clear, which made it clean
    slot.cleared(6, pages(1, 2))
    slot.read(7, pages(), quiet=True)
    assert [(debt.page, debt.seq) for debt in slot.lost()] == [(2, 99)]


def test_a_clear_pays_for_no_store_meanwhile_to_a_page_whose_entry_was_read() -> None:
    slot = log()
    slot.manual = True
    slot.appended(3, [1], seq=97)
    slot.read(5, pages(1), quiet=True)
    slot.appended(6, [1], seq=98)
    slot.cleared(6, pages(1))
    slot.read(7, pages(), quiet=True)
    assert [(debt.page, debt.seq) for debt in slot.lost()] == [(1, 98)]


def test_what_changed_while_the_slot_was_not_logged_is_not_owed() -> None:
    slot = SlotLog(0, 0, 16)
    slot.snapshot(1)
    slot.appended(2, [3], seq=1)
    slot.set_logging(3, True)
    slot.compared(4, pages(1), ran=2)
    slot.read(5, pages(), quiet=True)
    assert slot.lost() == []


def test_switching_on_what_is_on_changes_nothing() -> None:
    slot = log()
    slot.set_logging(4, True)
    slot.compared(5, pages(1), ran=3)
    slot.read(6, pages(), quiet=True)
    assert [debt.page for debt in slot.lost()] == [1]


def test_switching_logging_off_forgives_what_was_owed() -> None:
    slot = log()
    slot.compared(4, pages(1), ran=3)
    slot.read(5, pages(), quiet=True)
    slot.set_logging(6, False)
    assert slot.lost() == []


def test_a_migrated_copy_that_differs_is_lost_at_once() -> None:
    slot = log()
    slot.read(5, pages(1), quiet=False)
    slot.differs(pages(9))
    assert [debt.page for debt in slot.lost()] == [9]


def test_a_bit_that_stands_until_it_is_cleared_is_not_spurious() -> None:
    slot = log()
    slot.manual = True
    slot.compared(4, pages(1, 2), ran=3)
    slot.read(5, pages(1, 2), quiet=True)
    slot.read(6, pages(1, 2), quiet=True)
    assert slot.figures.spurious == 0
    slot.cleared(7, pages(1))
    slot.read(8, pages(1, 2), quiet=True)
    assert slot.figures.spurious == 1


def test_rounds_count_the_reads() -> None:
    slot = log()
    slot.read(5, pages(), quiet=True)
    slot.read(9, pages(), quiet=True)
    assert [slot.round_after(line) for line in (4, 5, 9)] == [1, 2, 3]
