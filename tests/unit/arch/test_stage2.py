# SPDX-License-Identifier: GPL-2.0-or-later
"""The stage 2 walker: hand-worked vectors, every granule and level, each fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model.arch.stage2 import Fault, Granule, Leaf, Reason, WalkFault, walk
from tests.unit.arch.tables import BLOCK, LSB, PAGE_DESC, TABLE, Ram, map_leaf, vtcr

GRANULES = {"4k": Granule.KB4, "16k": Granule.KB16, "64k": Granule.KB64}


def leaf_of(result: Leaf | WalkFault) -> Leaf:
    assert isinstance(result, Leaf), result
    return result


def fault_of(result: Leaf | WalkFault) -> WalkFault:
    assert isinstance(result, WalkFault), result
    return result


# --- vectors ------------------------------------------------------------------


def test_4k_two_concatenated_tables_worked_by_hand() -> None:
    """40-bit IPA, start level 1: IPA[39:30] indexes 1024 descriptors in 8 KB."""
    ipa = 0x85_2345_6789  # [39:30] 0x214, [29:21] 0x11a, [20:12] 0x056
    words = {
        0x4400_2000 + 0x214 * 8: 0x4401_0000 | TABLE,
        0x4401_0000 + 0x11A * 8: 0x4402_0000 | TABLE,
        0x4402_0000 + 0x056 * 8: 0x9_8765_4000 | PAGE_DESC | 1 << 51 | 1 << 10,
    }
    # Bits below the 8 KB alignment and the VMID take no part.
    vttbr = 0x0042_0000_4400_3FFF
    leaf = leaf_of(walk(ipa, vttbr, vtcr("4k", 40, 1, ps=2), words.get))
    assert leaf.level == 3
    assert leaf.ipa == 0x85_2345_6000
    assert leaf.size == 4096
    assert leaf.descriptor_pa == 0x4402_02B0
    assert leaf.output == 0x9_8765_4000
    assert [step.level for step in leaf.path] == [1, 2, 3]
    assert leaf.path[0].descriptor_pa == 0x4400_30A0


def test_4k_48_bits_from_level_0_to_a_1gb_block() -> None:
    """[47:39] 0x101, [38:30] 3."""
    words = {0x8000 + 0x101 * 8: 0x9000 | TABLE, 0x9018: 0x7_4000_0000 | BLOCK}
    ipa = 0x101 << 39 | 3 << 30 | 0x1234_5678
    leaf = leaf_of(walk(ipa, 0x8000, vtcr("4k", 48, 0, ps=5), words.get))
    assert (leaf.level, leaf.size, leaf.ipa) == (1, 1 << 30, 0x101 << 39 | 3 << 30)


def test_lpa2_level_minus_1_and_a_512gb_block() -> None:
    """52-bit IPA: [51:48] at level -1 (16 descriptors, 128 bytes), [47:39] at level 0.

    The base's bits [51:48] stand in VTTBR_EL2[5:2], a descriptor's OA[51:50] in [9:8]
    and OA[49:48] in place.
    """
    value = vtcr("4k", 52, -1, ds=1)
    base = 0xA_0000_0000_0080
    vttbr = 0x0080 | 0xA << 2
    words = {
        base + 0xF * 8: 0x2_4000_0000_1000 & (1 << 50) - 1 | 0b11 << 8 | TABLE,
        0xE_4000_0000_1000 + 0x1FF * 8: 0x1_0080_0000_0000 | 0b01 << 8 | BLOCK,
    }
    leaf = leaf_of(walk(2**52 - 1, vttbr, value, words.get))
    assert leaf.level == 0
    assert leaf.size == 1 << 39
    assert leaf.ipa == 0xF_FF80_0000_0000
    assert leaf.output == 0x5_0080_0000_0000


def test_64k_52_bit_addresses_have_their_top_in_15_12() -> None:
    value = vtcr("64k", 52, 1)
    base = 0x3_0000_0001_0000  # 2^10 descriptors: 8 KB
    words = {
        base + 5 * 8: 0x0002_0000 | 0xB << 12 | TABLE,
        0xB_0000_0002_0000 + 7 * 8: 0x4000_0000 | 0x9 << 12 | BLOCK,
    }
    ipa = 5 << 42 | 7 << 29 | 0x123
    leaf = leaf_of(walk(ipa, 0x0001_0000 | 3 << 2, value, words.get))
    assert (leaf.level, leaf.output) == (2, 0x9_0000_4000_0000)


def test_52_bit_base_is_aligned_to_64_bytes_however_small_its_table() -> None:
    """Two descriptors need 16 bytes, but VTTBR_EL2[5:2] is the address's bits [51:48]."""
    base = 0xF_0000_0000_1040
    words = {base + 8: 0x7_0000 | PAGE_DESC}
    leaf = leaf_of(walk(1 << 16, 0x1040 | 0xF << 2, vtcr("64k", 17, 3), words.get))
    assert leaf.descriptor_pa == base + 8
    # A 48-bit base of so small a table may have bits [5:4].
    words = {0x1070 + 8: 0x7_0000 | PAGE_DESC}
    leaf = leaf_of(walk(1 << 16, 0x1070, vtcr("64k", 17, 3, ps=5), words.get))
    assert leaf.descriptor_pa == 0x1078


def test_16k_pages() -> None:
    """40-bit IPA, start level 2: [39:25] is 15 bits, 16 tables of 2^11 descriptors."""
    ipa = 0x7FFF << 25 | 0x7FE << 14 | 0x21
    words = {
        0x100_0000 + 0x7FFF * 8: 0x200_0000 | TABLE,
        0x200_0000 + 0x7FE * 8: 0x4000 | PAGE_DESC,
    }
    leaf = leaf_of(walk(ipa, 0x100_0000, vtcr("16k", 40, 2, ps=2), words.get))
    assert (leaf.level, leaf.size, leaf.ipa) == (3, 1 << 14, ipa - 0x21)


def test_start_level_3_of_the_4k_granule() -> None:
    words = {0x2000 + 13 * 8: 0x5000 | PAGE_DESC}
    leaf = leaf_of(walk(13 << 12, 0x2000, vtcr("4k", 16, 3), words.get))
    assert (leaf.level, len(leaf.path)) == (3, 1)


# --- every legal configuration ------------------------------------------------


def start_levels(granule: str, bits: int, ds: int) -> list[int]:
    """Start levels that leave 1 bit up to a table and 16 more for the initial lookup."""
    stride = {"4k": 9, "16k": 11, "64k": 13}[granule]
    found = []
    for level, lsb in LSB[granule].items():
        if 1 <= bits - lsb <= stride + 4 and (
            ds or (granule, level) not in (("4k", -1), ("16k", 0))
        ):
            found.append(level)
    return found


def block_allowed(granule: str, level: int, ds: int) -> bool:
    """The manual's list of block levels, written out."""
    return (granule, level) in {("4k", 1), ("4k", 2), ("16k", 2), ("64k", 1), ("64k", 2)} or (
        ds == 1 and (granule, level) in {("4k", 0), ("16k", 1)}
    )


@st.composite
def configurations(draw: st.DrawFn) -> tuple[str, int, int, int]:
    granule = draw(st.sampled_from(sorted(GRANULES)))
    ds = 0 if granule == "64k" else draw(st.integers(0, 1))
    largest = 52 if ds or granule == "64k" else 48
    bits = draw(st.integers(17 if granule == "64k" else 16, largest))
    return granule, bits, draw(st.sampled_from(start_levels(granule, bits, ds))), ds


@given(configurations(), st.integers(0, 2**52 - 1), st.data())
def test_finds_the_leaf_at_every_level(
    configuration: tuple[str, int, int, int], ipa: int, data: st.DataObject
) -> None:
    granule, bits, start, ds = configuration
    ipa %= 1 << bits
    levels = [
        level
        for level in range(start, 4)
        if level == 3 or (level in LSB[granule] and block_allowed(granule, level, ds))
    ]
    level = data.draw(st.sampled_from(levels))
    size = 1 << LSB[granule][level]
    output = 0x5555_5555_0000 & -size & (1 << 48) - 1
    if granule == "64k":
        output &= ~0xF000
    ram = Ram()
    kind = PAGE_DESC if level == 3 else BLOCK
    base, pool = 1 << 40, 1 << 41
    pa = map_leaf(ram, granule, start, base, ipa, level, output | 1 << 51 | kind, pool)
    leaf = leaf_of(walk(ipa, base, vtcr(granule, bits, start, ds=ds), ram.read64))
    assert leaf.descriptor_pa == pa
    assert (leaf.level, leaf.size) == (level, size)
    assert leaf.ipa <= ipa < leaf.ipa + size
    assert leaf.ipa % size == 0
    assert leaf.output == output
    assert len(leaf.path) == level - start + 1
    assert leaf.path[-1].descriptor == leaf.descriptor


@given(configurations(), st.integers(0, 2**52 - 1))
def test_a_block_where_none_is_allowed_is_a_translation_fault(
    configuration: tuple[str, int, int, int], ipa: int
) -> None:
    granule, bits, start, ds = configuration
    ipa %= 1 << bits
    for level in range(start, 4):
        if level < 3 and block_allowed(granule, level, ds):
            continue
        ram = Ram()
        pa = map_leaf(ram, granule, start, 1 << 40, ipa, level, BLOCK, 1 << 41)
        fault = fault_of(walk(ipa, 1 << 40, vtcr(granule, bits, start, ds=ds), ram.read64))
        assert (fault.reason, fault.level, fault.pa) == (Reason.INVALID, level, pa)


@given(
    st.integers(0, 2**53),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
def test_hostile_values_end_in_a_result(ipa: int, vttbr: int, value: int, everywhere: int) -> None:
    """Any register, a memory in which each word is the same (loops), five reads at most."""
    asked = []

    def read(pa: int) -> int:
        asked.append(pa)
        return everywhere

    result = walk(ipa, vttbr, value, read)
    assert len(asked) <= 5
    assert all(pa % 8 == 0 and 0 <= pa < 2**52 for pa in asked)
    assert len(asked) == len(result.path)


# --- faults -------------------------------------------------------------------


def no_memory(pa: int) -> int | None:
    raise AssertionError(f"read of {pa:#x}")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (vtcr("4k", 40, 1) | 1 << 38, Reason.NOT_MODELLED),
        (vtcr("4k", 40, 1) | 1 << 36, Reason.NOT_MODELLED),
        (vtcr("4k", 40, 1) | 0b11 << 14, Reason.TG0_RESERVED),
        (vtcr("4k", 49, 0), Reason.T0SZ_RANGE),  # below 16 without DS
        (vtcr("16k", 49, 1), Reason.T0SZ_RANGE),
        (vtcr("4k", 53, -1, ds=1), Reason.T0SZ_RANGE),
        (vtcr("64k", 53, 1), Reason.T0SZ_RANGE),
        (vtcr("4k", 15, 3), Reason.T0SZ_RANGE),  # above 48
        (vtcr("64k", 16, 3), Reason.T0SZ_RANGE),  # above 47
        (vtcr("64k", 40, 1) | 0b11 << 6, Reason.SL_RESERVED),
        (vtcr("16k", 48, 0), Reason.SL_RESERVED),  # level 0 needs DS
        (vtcr("4k", 48, 0, ds=1) | 1 << 33, Reason.SL_RESERVED),  # SL2:SL0 0b110
        (vtcr("4k", 40, 1, ds=1) | 1 << 33, Reason.SL_RESERVED),  # 0b101
        (vtcr("4k", 39, 0), Reason.SL_INCONSISTENT),  # no bit for level 0
        (vtcr("4k", 44, 1), Reason.SL_INCONSISTENT),  # 32 tables
        (vtcr("64k", 47, 2), Reason.SL_INCONSISTENT),
        (vtcr("16k", 41, 2), Reason.SL_INCONSISTENT),
    ],
)
def test_bad_vtcr_is_a_level_0_translation_fault(value: int, reason: Reason) -> None:
    fault = fault_of(walk(0, 0x4000_0000, value, no_memory))
    assert (fault.reason, fault.level, fault.fault) == (reason, 0, Fault.TRANSLATION)


def test_limits_next_to_the_faults_are_legal() -> None:
    for value in (vtcr("4k", 43, 1), vtcr("4k", 40, 0), vtcr("64k", 46, 2), vtcr("16k", 40, 2)):
        assert fault_of(walk(0, 0, value, lambda pa: 0)).reason is Reason.INVALID


def test_sl2_is_ignored_without_lpa2_and_ds_with_64k() -> None:
    for value in (vtcr("4k", 40, 1) | 1 << 33, vtcr("64k", 40, 2) | 1 << 32):
        assert fault_of(walk(0, 0, value, lambda pa: 0)).reason is Reason.INVALID


def test_ipa_out_of_range() -> None:
    value = vtcr("4k", 40, 1)
    fault = fault_of(walk(1 << 40, 0, value, no_memory))
    assert (fault.reason, fault.level) == (Reason.IPA_RANGE, 0)
    assert fault_of(walk((1 << 40) - 1, 0, value, lambda pa: 0)).reason is Reason.INVALID


def test_base_beyond_ps_is_a_level_0_address_size_fault() -> None:
    value = vtcr("4k", 40, 1, ps=0)
    fault = fault_of(walk(0, 1 << 32, value, no_memory))
    assert (fault.reason, fault.level, fault.fault) == (Reason.BASE_RANGE, 0, Fault.ADDRESS_SIZE)
    assert fault_of(walk(0, (1 << 32) - 0x2000, value, lambda pa: 0)).reason is Reason.INVALID


@pytest.mark.parametrize("kind", [TABLE, BLOCK])
def test_descriptor_address_beyond_ps(kind: int) -> None:
    value = vtcr("4k", 40, 1, ps=1)
    fault = fault_of(walk(0, 0, value, {0: 1 << 36 | kind}.get))
    assert (fault.reason, fault.level) == (Reason.OUTPUT_RANGE, 1)
    assert fault.fault is Fault.ADDRESS_SIZE


def test_table_outside_memory() -> None:
    value = vtcr("4k", 40, 1)
    fault = fault_of(walk(0, 0x9000_0000, value, lambda pa: None))
    assert (fault.reason, fault.level, fault.pa) == (Reason.TABLE_OUTSIDE_MEMORY, 1, 0x9000_0000)
    assert fault.fault is Fault.EXTERNAL_ABORT
    fault = fault_of(walk(8 << 21, 0, value, {0: 0x7000 | TABLE}.get))
    assert (fault.level, fault.pa) == (2, 0x7040)
    assert len(fault.path) == 1


def test_reserved_level_3_descriptor_is_invalid() -> None:
    ram = Ram()
    map_leaf(ram, "4k", 1, 0, 0x3000, 3, 0x5000 | 0b01, 0x10_0000)
    assert fault_of(walk(0x3000, 0, vtcr("4k", 40, 1), ram.read64)).reason is Reason.INVALID
