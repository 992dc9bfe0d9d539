# SPDX-License-Identifier: GPL-2.0-or-later
"""Leaf descriptors: dirty state and permissions."""

from hypothesis import given
from hypothesis import strategies as st

from qemu_model.arch import descriptor as leaf
from qemu_model.arch.descriptor import DirtyState

DBM, WRITE, AF = 1 << 51, 1 << 7, 1 << 10


def test_dirty_states() -> None:
    assert leaf.dirty_state(DBM) is DirtyState.CLEAN
    assert leaf.dirty_state(DBM | WRITE) is DirtyState.DIRTY
    assert leaf.dirty_state(WRITE) is DirtyState.OTHER
    assert leaf.dirty_state(0) is DirtyState.OTHER


@given(st.integers(0, 2**64 - 1))
def test_writable_clean_agrees_with_the_state(descriptor: int) -> None:
    assert leaf.writable_clean(descriptor) == (leaf.dirty_state(descriptor) is DirtyState.CLEAN)


@given(st.integers(0, 2**64 - 1))
def test_a_dirtied_leaf_has_its_access_flag(descriptor: int) -> None:
    after = leaf.dirtied(descriptor)
    assert after & AF
    assert after & WRITE
    assert after & ~(AF | WRITE) == descriptor & ~(AF | WRITE)


def test_clean_without_read_permission_becomes_write_only() -> None:
    after = leaf.dirtied(DBM)
    assert leaf.writable(after)
    assert not leaf.readable(after)


def test_execute_never_follows_feat_xnx() -> None:
    granted = {xn: [leaf.executable(xn << 53, el) for el in (0, 1)] for xn in range(4)}
    assert granted == {
        0b00: [True, True],
        0b01: [True, False],
        0b10: [False, False],
        0b11: [False, True],
    }
