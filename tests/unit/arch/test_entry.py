# SPDX-License-Identifier: GPL-2.0-or-later
"""HDBSS entries: the digest's vectors, round trips, ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model.arch import entry
from qemu_model.arch.entry import Entry
from qemu_model.arch.stage2 import Granule

IPA = 0x1_2345_6789


@pytest.mark.parametrize(
    ("level", "value"),
    [(3, 0x0000_0001_2345_6007), (2, 0x0000_0001_2340_0005), (1, 0x0000_0001_0000_0003), (0, 1)],
)
def test_vectors_of_the_digest(level: int, value: int) -> None:
    encoded = entry.encode(IPA, level, Granule.KB4)
    assert encoded == value
    assert Entry.decode(encoded).level == level


@pytest.mark.parametrize("code", range(8))
def test_ttwl_round_trip(code: int) -> None:
    level = entry.ttwl_to_level(code)
    assert -4 <= level <= 3
    assert entry.level_to_ttwl(level) == code


def test_ttwl_codes_of_the_digest() -> None:
    codes = {3: 0b011, 2: 0b010, 1: 0b001, 0: 0, -1: 0b111, -2: 0b110, -3: 0b101, -4: 0b100}
    assert {level: entry.level_to_ttwl(level) for level in codes} == codes
    for outside in (-5, 4):
        with pytest.raises(ValueError, match="no TTWL code"):
            entry.level_to_ttwl(outside)


def test_larger_granules_clear_the_low_ipa_bits() -> None:
    ones = 2**52 - 1
    assert entry.encode(ones, 3, Granule.KB16) & 0x3FF0 == 0
    assert entry.encode(ones, 3, Granule.KB64) & 0xFFF0 == 0
    assert entry.encode(ones, 3, Granule.KB4) == 0x000F_FFFF_FFFF_F007


KB, MB, GB, TB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


@pytest.mark.parametrize(
    ("granule", "level", "size"),
    [
        (Granule.KB4, 3, 4 * KB),
        (Granule.KB4, 2, 2 * MB),
        (Granule.KB4, 1, GB),
        (Granule.KB4, 0, 512 * GB),
        (Granule.KB16, 3, 16 * KB),
        (Granule.KB16, 2, 32 * MB),
        (Granule.KB16, 1, 64 * GB),
        (Granule.KB64, 3, 64 * KB),
        (Granule.KB64, 2, 512 * MB),
        (Granule.KB64, 1, 4 * TB),
    ],
)
def test_leaf_sizes_and_ranges(granule: Granule, level: int, size: int) -> None:
    decoded = Entry.decode(entry.encode(5 * size + 123, level, granule))
    assert decoded.dirty_range(granule) == range(5 * size, 6 * size)


@pytest.mark.parametrize("level", [-1, -2, -3, -4])
def test_no_range_for_a_level_without_leaves(level: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        Entry(True, level, 0).dirty_range(Granule.KB4)


@given(st.integers(0, 2**64 - 1))
def test_decode_then_encode_drops_res0_only(value: int) -> None:
    assert Entry.decode(value).encode() == value & ~entry.RES0


def test_zeroed_slot_is_not_valid() -> None:
    assert Entry.decode(0) == Entry(False, 0, 0)
