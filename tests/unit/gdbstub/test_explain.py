# SPDX-License-Identifier: GPL-2.0-or-later
"""What people read about registers, buffers and walks, line by line."""

from dataclasses import replace

import pytest

from qemu_model.arch import entry
from qemu_model.arch.registers import VTCR_HA, VTCR_HD, VTCR_HDBSS, Hdbssprod, ProdFsc
from qemu_model.arch.stage2 import Granule
from qemu_model.gdbstub.explain import (
    PeState,
    base_words,
    buffer_lines,
    exit_words,
    index_words,
    ipa_of,
    leaf_words,
    pe_lines,
    size_words,
    walk_lines,
)
from tests.unit.arch.tables import Ram, map_leaf, vtcr

ON = VTCR_HA.mask | VTCR_HD.mask | VTCR_HDBSS.mask
VTCR = vtcr("4k", 40, 1) | ON
BASE, BUFFER, POOL = 0x4100_0000, 0x4200_0000, 0x4300_0000
CLEAN = 0x0008_0000_0000_0443
"""Page, AF, S2AP read-only, DBM."""
DIRTY, READ_ONLY, INVALID = CLEAN | 1 << 7, CLEAN & ~(1 << 51), 0


@pytest.mark.parametrize(
    ("size", "words"),
    [(4096, "4 KB"), (2 << 20, "2 MB"), (1 << 30, "1 GB"), (512, "512 bytes"), (0, "0 bytes")],
)
def test_sizes(size: int, words: str) -> None:
    assert size_words(size) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0x4200_0000, "HDBSSBR_EL2 0x42000000: BADDR 0x42000000, SZ 0 (512 entries)"),
        (0x4200_0005, "HDBSSBR_EL2 0x42000005: BADDR 0x42000000, SZ 5 (16384 entries)"),
        (0x4200_000A, "HDBSSBR_EL2 0x4200000a: BADDR 0x42000000, SZ 10 (reserved)"),
        (
            0x4200_1001,
            "HDBSSBR_EL2 0x42001001: BADDR 0x42000000, SZ 1 (1024 entries, "
            "BADDR is not aligned to that)",
        ),
    ],
)
def test_the_base(value: int, words: str) -> None:
    assert base_words(value) == words


@pytest.mark.parametrize(
    ("prod", "words"),
    [
        (Hdbssprod.of(0), "0x0: INDEX 0, FSC 0x00 (no fault); 0 pending"),
        (Hdbssprod.of(512), "0x200: INDEX 512, FSC 0x00 (no fault); 512 pending, full"),
        (
            Hdbssprod.of(3, ProdFsc.EXTERNAL_ABORT),
            "0x40000003: INDEX 3, FSC 0x10 (External abort on an HDBSS write); 3 pending",
        ),
        (Hdbssprod.of(3, 1), "0x4000003: INDEX 3, FSC 0x01 (reserved); 3 pending"),
    ],
)
def test_the_index(prod: Hdbssprod, words: str) -> None:
    assert index_words(BUFFER, prod.value) == f"HDBSSPROD_EL2 {words}"


def test_where_a_pe_is() -> None:
    pe = PeState(1, "do_idle+0x4", 2, False, True, BUFFER, 2, ON)
    assert pe_lines(pe, current=True) == [
        "* PE 1: do_idle+0x4, EL2, host, halted",
        "    HDBSS on: VTCR_EL2 0x200000600000, HA=1 HD=1 HDBSS=1",
        "    HDBSSBR_EL2 0x42000000: BADDR 0x42000000, SZ 0 (512 entries)",
        "    HDBSSPROD_EL2 0x2: INDEX 2, FSC 0x00 (no fault); 2 pending",
        "    last exit: none seen",
    ]
    other = replace(pe, el=None, guest=True, halted=False, vtcr=VTCR_HDBSS.mask, last_exit="IRQ")
    lines = pe_lines(other)
    assert lines[0] == "  PE 1: do_idle+0x4, in the guest"
    assert lines[1] == "    HDBSS off: VTCR_EL2 0x200000000000, HA=0 HD=0 HDBSS=1"
    assert lines[-1] == "    last exit: IRQ"


# --- buffers ------------------------------------------------------------------------------


def buffer(prod: int, count: int, *entries: int, br: int = BUFFER, walk: int = VTCR) -> list[str]:
    ram = Ram({BUFFER + 8 * i: value for i, value in enumerate(entries)})
    return list(buffer_lines(br, prod, walk, ram.read64, count))[2:]


PAGE = entry.encode(0x4000_1000, 3, Granule.KB4)
BLOCK = entry.encode(0x4020_0000, 2, Granule.KB4)


def test_a_buffer_entry_by_entry() -> None:
    assert buffer(3, 16, PAGE, BLOCK, 0xFF00) == [
        "   [0] 0x0000000040001007: IPA 0x40001000, TTWL 3 (level 3, 4 KB)",
        "   [1] 0x0000000040200005: IPA 0x40200000, TTWL 2 (level 2, 2 MB)",
        "   [2] 0x000000000000ff00: not valid",
        "-> [3] 0x0000000000000000: not valid; the next entry goes here",
    ]


def test_the_last_entries_only() -> None:
    lines = buffer(2, 1, PAGE, BLOCK)
    assert [line[3:6] for line in lines] == ["[1]", "[2]"]


def test_a_full_buffer() -> None:
    assert buffer(512, 0) == ["-> [512] is behind the end: a write that needs an entry is refused"]
    assert buffer(600, 1)[0].startswith("   [511] ")


def test_buffers_that_cannot_be() -> None:
    assert buffer(1, 4, br=BUFFER | 12) == []
    hole = Ram(holes=[range(BUFFER, BUFFER + 4096)])
    lines = list(buffer_lines(BUFFER, 0, VTCR, hole.read64, 4))
    assert lines[2] == "-> [0] is outside RAM; the next entry goes here"
    # A level that no leaf has, and a VTCR_EL2 without a walk: no size to tell.
    assert "TTWL 4 (level -4)" in buffer(1, 1, 1 | 4 << 1)[0]
    assert "(level 3)" in buffer(1, 1, PAGE, walk=0)[0]


# --- walks --------------------------------------------------------------------------------


def walk(
    leaf: int, ipa: int = 0x4020_1000, level: int = 3, prod: int = 0, walk_by: int = VTCR
) -> list[str]:
    ram = Ram()
    map_leaf(ram, "4k", 1, BASE, 0x4020_1000, level, leaf, POOL)
    return list(walk_lines(ipa, BASE | 7 << 48, walk_by, BUFFER, prod, ram.read64))


def test_a_walk_to_a_page() -> None:
    assert walk(CLEAN | 0x5000_0000) == [
        "IPA 0x40201000, VTTBR_EL2 0x7000041000000 (VMID 7), VTCR_EL2 0x200080660058",
        "  4 KB granule, 40 bits of IPA, 48 of PA, from level 1",
        "  level 1: table 0x41000000, index 1, at 0x41000008: 0x0000000043000003, "
        "table at 0x43000000",
        "  level 2: table 0x43000000, index 1, at 0x43000008: 0x0000000043001003, "
        "table at 0x43001000",
        "  level 3: table 0x43001000, index 1, at 0x43001008: 0x0008000050000443, "
        "4 KB page at PA 0x50000000",
        "  S2AP=01 (read-only) DBM=1 AF=1 Contiguous=0 XN=00: writable-clean",
        "  a write: makes it dirty and appends entry 0",
    ]


def test_a_walk_to_a_block() -> None:
    lines = walk(0x0008_0000_5000_04C1, level=2)
    assert lines[3].endswith("0x00080000500004c1, 2 MB block at PA 0x50000000")
    assert lines[-2].endswith("S2AP=11 (read-write) DBM=1 AF=1 Contiguous=0 XN=00: writable-dirty")


def test_a_walk_that_faults() -> None:
    lines = walk(INVALID)
    assert lines[-2].endswith("0x0000000000000000, invalid")
    assert lines[-1] == (
        "  fault: invalid or reserved descriptor (bits [1:0], AArch64.DecodeDescriptorType) "
        "(0x43001008): Translation fault, level 3"
    )
    assert walk(CLEAN & ~2)[-2].endswith("reserved")
    assert walk(CLEAN, ipa=1 << 41)[-1] == (
        "  fault: IPA larger than 64-T0SZ bits (AArch64.IPAIsOutOfRange): "
        "Translation fault, level 0"
    )
    assert walk(CLEAN, walk_by=3 << 14)[1:] == [
        "  no walk: VTCR_EL2.TG0 is 0b11: the granule is IMPLEMENTATION DEFINED, none chosen "
        "here: Translation fault, level 0"
    ]


@pytest.mark.parametrize(
    ("leaf", "prod", "walk_by", "words"),
    [
        (DIRTY, 0, VTCR, "is done, nothing is recorded"),
        (READ_ONLY, 0, VTCR, "Permission fault, it is not writable"),
        (CLEAN, 511, VTCR, "makes it dirty and appends entry 511"),
        (CLEAN, 512, VTCR, "is refused with HDBSSF: the buffer is full"),
        (CLEAN, 0x4000_0000, VTCR, "is refused with HDBSSF: HDBSSPROD_EL2.FSC is not 0"),
        (CLEAN, 0, VTCR & ~ON, "Permission fault, VTCR_EL2.{HA,HD} is not {1,1}"),
        (CLEAN, 0, VTCR & ~VTCR_HDBSS.mask, "makes it dirty, nothing is recorded: HDBSS is off"),
        (CLEAN & ~(1 << 10), 0, VTCR & ~ON, "Access flag fault"),
    ],
)
def test_what_a_write_does(leaf: int, prod: int, walk_by: int, words: str) -> None:
    assert walk(leaf, prod=prod, walk_by=walk_by)[-1] == f"  a write: {words}"


def test_a_leaf_that_hardware_leaves_alone() -> None:
    assert leaf_words(READ_ONLY | 3 << 53 | 1 << 52) == (
        "S2AP=01 (read-only) DBM=0 AF=1 Contiguous=1 XN=11: not managed by hardware"
    )


# --- exceptions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("esr", "vector", "words"),
    [
        (
            0x93C5_8047,
            0x400,
            "data abort, Translation fault level 3, write, IPA 0x40001008 (ESR_EL2 0x93c58047)",
        ),
        (
            0x800_9200_00CF,
            0x400,
            "data abort, Permission fault level 3, write, on a stage 1 walk, HDBSSF, "
            "IPA 0x40001008 (ESR_EL2 0x800920000cf)",
        ),
        (
            0x8200_0005,
            0x600,
            "instruction abort, Translation fault level 1, IPA 0x40001008 (ESR_EL2 0x82000005)",
        ),
        (0x5A00_0000, 0x400, "HVC (ESR_EL2 0x5a000000)"),
        (0xFC00_0000, 0x400, "exception class 0x3f (ESR_EL2 0xfc000000)"),
        (0, 0x480, "IRQ"),
        (0, 0x580, "SError"),
    ],
)
def test_exits(esr: int, vector: int, words: str) -> None:
    assert exit_words(esr, 0x1008, 0x40_0010, vector) == words


def test_the_ipa_of_an_abort() -> None:
    assert ipa_of(0xFFFF_8000_0000_0ABC, 1 << 63 | 0x40_0010) == 0x4000_1ABC
