# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers: encodings and fields against the digest's figures, and RES0."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qemu_model.arch import registers as regs
from qemu_model.arch.bits import Field, bit_range
from qemu_model.arch.registers import Hdbssbr, Hdbssprod, ProdFsc, SysReg

U64 = st.integers(0, 2**64 - 1)


def test_instruction_words_of_the_digest() -> None:
    assert regs.mrs(SysReg.HDBSSBR_EL2) == 0xD53C2340
    assert regs.msr(SysReg.HDBSSBR_EL2) == 0xD51C2340
    assert regs.mrs(SysReg.HDBSSPROD_EL2) == 0xD53C2360
    assert regs.msr(SysReg.HDBSSPROD_EL2) == 0xD51C2360
    assert regs.mrs(SysReg.VTCR_EL2, 5) == 0xD53C2145


def test_fields_do_not_overlap_and_cover_vtcr() -> None:
    fields = [value for name, value in vars(regs).items() if name.startswith("VTCR_")]
    masks = [value.mask for value in fields if isinstance(value, Field)] + [regs.VTCR_RES0]
    for one, other in itertools.combinations(masks, 2):
        assert one & other == 0


def test_bit_range_and_field_limits() -> None:
    assert bit_range(63, 0) == 2**64 - 1
    assert bit_range(12, 12) == 0x1000
    with pytest.raises(ValueError, match=r"SZ\[3:0\] cannot hold 0x10"):
        regs.HDBSSBR_SZ.put(0, 16)
    with pytest.raises(ValueError, match="cannot hold"):
        regs.HDBSSBR_SZ.put(0, -1)


@given(U64)
def test_put_and_get_are_inverse(value: int) -> None:
    content = regs.HDBSSPROD_INDEX.get(value)
    assert regs.HDBSSPROD_INDEX.put(value, content) == value


def test_hdbss_is_effective_only_with_ha_hd_hdbss() -> None:
    for ha, hd, hdbss in itertools.product((0, 1), repeat=3):
        vtcr = ha << 21 | hd << 22 | hdbss << 45
        assert regs.hd_enabled(vtcr) == bool(ha and hd)
        assert regs.hdbss_enabled(vtcr) == bool(ha and hd and hdbss)


def test_stage2_is_in_use_with_vm_and_without_tge() -> None:
    assert regs.stage2_in_use(1)
    assert regs.stage2_in_use(1 | 1 << 34)
    assert not regs.stage2_in_use(0)
    assert not regs.stage2_in_use(1 | 1 << 27)


def test_prod_all_ones_keeps_fsc_and_index_only() -> None:
    kept = regs.kept_by_write(SysReg.HDBSSPROD_EL2)
    assert kept == bit_range(31, 26) | bit_range(18, 0)
    assert kept == ~regs.HDBSSPROD_RES0 & 2**64 - 1
    assert regs.kept_by_write(SysReg.ID_AA64MMFR1_EL1) is None


def test_br_all_ones_keeps_baddr_and_sz_only() -> None:
    kept = regs.kept_by_write(SysReg.HDBSSBR_EL2)
    assert kept == bit_range(55, 12) | bit_range(3, 0)
    assert kept == ~regs.HDBSSBR_RES0 & 2**64 - 1


@pytest.mark.parametrize("sz", range(10))
def test_capacity_and_slots(sz: int) -> None:
    br = Hdbssbr(0x8000_0000 | sz)
    assert br.capacity == 512 << sz
    assert br.capacity * 8 == 4096 << sz
    assert br.slot(0) == 0x8000_0000
    assert br.slot(br.capacity - 1) == 0x8000_0000 + (4096 << sz) - 8
    assert not br.reserved


def test_largest_capacity_fits_in_index() -> None:
    assert regs.hdbss_capacity(9) == 0x40000 <= 0x7FFFF


@pytest.mark.parametrize("sz", range(10, 16))
def test_reserved_sizes(sz: int) -> None:
    assert Hdbssbr(0x8000_0000 | sz).reserved


def test_base_is_aligned_to_the_buffer() -> None:
    assert Hdbssbr(0x8000_3000 | 2).base == 0x8000_0000
    assert not Hdbssbr(0x8000_3000 | 2).aligned
    assert Hdbssbr(0x8000_4000 | 2).aligned


def test_typed_values_drop_res0() -> None:
    ones = 2**64 - 1
    assert Hdbssbr(ones).value == 0x00FF_FFFF_FFFF_F00F
    prod = Hdbssprod(ones)
    assert (prod.value, prod.index, prod.fsc) == (0xFC07_FFFF, 0x7FFFF, 0x3F)
    assert Hdbssprod.of(5, ProdFsc.EXTERNAL_ABORT) == Hdbssprod(0x4000_0005)
