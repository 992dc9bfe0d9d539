# SPDX-License-Identifier: GPL-2.0-or-later
"""The sites of FEAT_HDBSS in small kernels, and what cannot be a kernel."""

import struct
from pathlib import Path

import capstone
import pytest

from qemu_model.arch.registers import SysReg
from qemu_model.errors import UsageError
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.sites import (
    ESR_EL1,
    Role,
    Site,
    Sites,
    Tlbi,
    decode,
    find_sites,
    sets_buffer,
    tlbi,
)
from tests.unit.vmlinux.kernel_like import (
    ENTER,
    HEAD,
    KERNEL,
    OTHER_ERET,
    READ,
    TEXT,
    VECTOR,
    WRITE,
    vmlinux,
    word,
)

HELD = (SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2, SysReg.VTCR_EL2)
OFFSETS = list(range(0x400, 0x800, 0x80))


def sites_of(directory: Path, source: str) -> tuple[Vmlinux, Sites]:
    elf = Vmlinux(vmlinux(directory, source))
    return elf, find_sites(elf)


def named(elf: Vmlinux, sites: Sites, *roles: Role) -> list[str]:
    """Where the sites with these roles are, as symbol+offset."""
    return [elf.name_of(address) for address in sites.of(*roles)]


def refused(directory: Path, source: str) -> str:
    with pytest.raises(UsageError) as caught:
        sites_of(directory, source)
    return str(caught.value)


def test_the_least_kernel(tmp_path: Path) -> None:
    elf, sites = sites_of(tmp_path, KERNEL)
    assert named(elf, sites, Role.ERET) == ["__guest_enter+0x4"]
    assert elf.name_of(sites.retry_eret) == "ret_to_user+0x4"
    assert sites.retry_eret not in sites.by_address
    assert named(elf, sites, Role.VECTOR) == [f"__kvm_hyp_vector+{at:#x}" for at in OFFSETS]
    assert len(sites.by_address) == 1 + len(OFFSETS)


@pytest.mark.parametrize("register", HELD, ids=lambda r: r.name)
@pytest.mark.parametrize("rt", [0, 7, 30, 31])
def test_accesses_to_the_registers(tmp_path: Path, register: SysReg, rt: int) -> None:
    source = f"{KERNEL}drain:\n{word(READ, register, rt)}{word(WRITE, register, rt)}"
    elf, sites = sites_of(tmp_path, source)
    drain = elf.address("drain")
    assert sites.of(Role.MRS, Role.MSR) == (drain, drain + 4)
    assert sites.by_address[drain] == Site(drain, Role.MRS, register, rt)
    assert sites.by_address[drain + 4] == Site(drain + 4, Role.MSR, register, rt)


def test_only_reads_of_the_id_and_syndrome_registers_matter(tmp_path: Path) -> None:
    numbers = (SysReg.ID_AA64MMFR1_EL1, SysReg.ESR_EL2, ESR_EL1)
    code = "".join(word(base, number, 3) for base in (READ, WRITE) for number in numbers)
    elf, sites = sites_of(tmp_path, f"{KERNEL}f:\n{code}")
    assert named(elf, sites, Role.MRS) == ["f"]
    assert named(elf, sites, Role.MRS_ESR) == ["f+0x4", "f+0x8"]
    assert named(elf, sites, Role.MSR) == []


def test_neighbours_are_no_sites(tmp_path: Path) -> None:
    neighbours = [int(SysReg.HDBSSBR_EL2) + (n << 5) for n in (-1, 2, 8, 128)]
    code = "".join(word(base, number, 1) for base in (READ, WRITE) for number in neighbours)
    _, sites = sites_of(
        tmp_path, f"{KERNEL}f:\n{code}    msr daifset, #2\n    isb\n    tlbi alle1\n"
    )
    assert sites.of(Role.MRS, Role.MSR, Role.MRS_ESR) == ()


def test_the_firmware_is_called_in_one_place(tmp_path: Path) -> None:
    call = "__arm_smccc_smc:\n    nop\n    smc #0\n    .size __arm_smccc_smc, . - __arm_smccc_smc\n"
    elf, sites = sites_of(tmp_path, f"{KERNEL}{call}other:\n    smc #0\n    smc #1\n    hvc #0\n")
    assert named(elf, sites, Role.SMC) == ["__arm_smccc_smc+0x4"]
    (tmp_path / "b").mkdir()
    _, without = sites_of(tmp_path / "b", f"{KERNEL}other:\n    smc #0\n")
    assert without.of(Role.SMC) == ()


@pytest.mark.parametrize("size", [None, 1, 3, 4])
def test_the_hardened_vectors(tmp_path: Path, size: int | None) -> None:
    count = 4 if size is None else size
    copies = f"    .balign 2048\n__bp_harden_hyp_vecs:\n    .space {count * 2048}\n"
    if size is not None:
        copies += f"    .size __bp_harden_hyp_vecs, {size * 2048}\n"
    elf, sites = sites_of(tmp_path, KERNEL + copies)
    base = elf.address("__bp_harden_hyp_vecs")
    assert base % 2048 == 0
    wanted = [base + n * 2048 + at for n in range(count) for at in OFFSETS]
    assert list(sites.of(Role.VECTOR))[len(OFFSETS) :] == wanted


def test_a_symbol_of_absurd_size_does_not_last_for_ever(tmp_path: Path) -> None:
    copies = "__bp_harden_hyp_vecs:\n    .size __bp_harden_hyp_vecs, 1 << 60\n"
    _, sites = sites_of(tmp_path, KERNEL + copies)
    assert len(sites.of(Role.VECTOR)) <= 17 * len(OFFSETS)


def test_code_of_the_nvhe_hypervisor_is_left_alone(tmp_path: Path) -> None:
    copy = (
        f"__kvm_nvhe_drain:\n{word(READ, SysReg.HDBSSPROD_EL2, 0)}"
        f"{word(WRITE, SysReg.VTCR_EL2, 0)}"
        f"drain:\n{word(WRITE, SysReg.VTCR_EL2, 0)}"
        "    .balign 2048\n__kvm_nvhe___kvm_hyp_vector:\n    .space 2048\n"
        "__kvm_nvhe___guest_enter:\n    eret\n"
    )
    elf, sites = sites_of(tmp_path, KERNEL + copy)
    assert named(elf, sites, Role.MRS, Role.MSR) == ["drain"]
    assert len(sites.of(Role.VECTOR)) == len(OFFSETS)
    assert named(elf, sites, Role.ERET) == ["__guest_enter+0x4"]


def alternative(replacement: str, name: str = "") -> str:
    """Two NOPs, and what the kernel may put there at boot (<asm/alternative-macros.h>)."""
    return f"""
patched{name}:
661{name or 0}:
    nop
    nop
    .pushsection .altinstructions, "a"
    .word 661{name or 0}b - .
    .word 663f - .
    .hword 5
    .byte 8
    .byte 664f - 663f
    .popsection
    .pushsection .altinstr_replacement, "ax"
663:
{replacement}
664:
    .popsection
"""


def test_what_alternatives_put_into_the_code(tmp_path: Path) -> None:
    inside = f"    nop\n{word(WRITE, SysReg.VTCR_EL2, 9)}"
    elf, sites = sites_of(tmp_path, KERNEL + alternative(inside))
    here = elf.address("patched") + 4
    assert sites.by_address[here] == Site(here, Role.MSR, SysReg.VTCR_EL2, 9)
    # The replacement itself is code that nobody executes; to stop there does no harm.
    assert {a for a in sites.of(Role.MSR) if a != here} <= {
        elf.section_address(".altinstr_replacement") + 4
    }


def test_alternatives_without_an_interesting_word(tmp_path: Path) -> None:
    _, sites = sites_of(tmp_path, KERNEL + alternative("    isb\n    dsb sy\n"))
    assert sites.of(Role.MRS, Role.MSR, Role.MRS_ESR, Role.SMC) == ()


def test_several_alternatives(tmp_path: Path) -> None:
    code = alternative(f"{word(READ, SysReg.ESR_EL2, 2)}    nop\n", "1")
    code += alternative(f"{word(READ, SysReg.HDBSSPROD_EL2, 4)}    nop\n", "2")
    elf, sites = sites_of(tmp_path, KERNEL + code)
    assert elf.address("patched1") in sites.of(Role.MRS_ESR)
    assert elf.address("patched2") in sites.of(Role.MRS)


def test_an_alternative_whose_replacement_is_nowhere(tmp_path: Path) -> None:
    wild = """
    .pushsection .altinstructions, "a"
    .word 0x7fffffff, -0x80000000
    .hword 5
    .byte 255, 255
    .word 1
    .popsection
"""
    _, sites = sites_of(tmp_path, KERNEL + wild)
    assert len(sites.by_address) == 1 + len(OFFSETS)


@pytest.mark.parametrize("kind", ["eret", "eretaa", "eretab"])
def test_every_kind_of_guest_entry(tmp_path: Path, kind: str) -> None:
    elf, sites = sites_of(tmp_path, KERNEL.replace("eret\n    sb", f"{kind}\n    sb"))
    assert named(elf, sites, Role.ERET) == ["__guest_enter+0x4"]


def test_an_authenticating_eret_is_none_to_retry_with(tmp_path: Path) -> None:
    source = KERNEL.replace("#1\n    eret", "#1\n    eretaa")
    assert "no ERET" in refused(tmp_path, source)


def test_no_kernel_with_kvm(tmp_path: Path) -> None:
    said = refused(tmp_path, HEAD + OTHER_ERET + VECTOR)
    assert "there is no __guest_enter" in said and "KVM" in said


def test_a_kernel_without_vectors(tmp_path: Path) -> None:
    assert "no symbol __kvm_hyp_vector" in refused(tmp_path, HEAD + ENTER + OTHER_ERET)


def test_no_eret_in_the_guest_entry(tmp_path: Path) -> None:
    source = HEAD + ENTER.replace("eret\n", "nop\n") + OTHER_ERET + VECTOR
    assert "no ERET in __guest_enter" in refused(tmp_path, source)


def test_no_eret_but_the_guest_entry(tmp_path: Path) -> None:
    assert "or none but that" in refused(tmp_path, HEAD + ENTER + VECTOR)


def test_two_guest_entries(tmp_path: Path) -> None:
    source = KERNEL.replace("ret_to_user", "more") + "__guest_enter2:\n    eret\n"
    elf = vmlinux(tmp_path, source)
    data = elf.read_bytes()
    elf.write_bytes(data.replace(b"__guest_enter2\0", b"__guest_enter\0\0"))
    with pytest.raises(UsageError, match="2 symbols are called __guest_enter"):
        find_sites(Vmlinux(elf))


def disassembled(value: int) -> str:
    """What capstone says of one word."""
    engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    (found,) = engine.disasm(struct.pack("<I", value), TEXT)
    return f"{found.mnemonic} {found.op_str}".strip()


@pytest.mark.parametrize(
    ("value", "text", "role"),
    [
        (0xD53C2145, "mrs x5, vtcr_el2", Role.MRS),
        (0xD51C2140, "msr vtcr_el2, x0", Role.MSR),
        (0xD5380722, "mrs x2, id_aa64mmfr1_el1", Role.MRS),
        (0xD53C5203, "mrs x3, esr_el2", Role.MRS_ESR),
        (0xD5385214, "mrs x20, esr_el1", Role.MRS_ESR),
        (0xD4000003, "smc #0", Role.SMC),
        (0xD53C2360, "mrs x0, s3_4_c2_c3_3", Role.MRS),
        (0xD51C235F, "msr s3_4_c2_c3_2, xzr", Role.MSR),
        (0xD69F03E0, "eret", None),
        (0xD51C5200, "msr esr_el2, x0", None),
        (0xD503201F, "nop", None),
    ],
)
def test_our_decoding_is_capstones(value: int, text: str, role: Role | None) -> None:
    assert disassembled(value) == text
    found = decode(value, TEXT)
    assert (found.role if found else None) is role


@pytest.mark.parametrize(
    ("word", "text", "found"),
    [
        (0xD50C87DF, "tlbi vmalls12e1", Tlbi(all=False, broadcast=False)),
        (0xD50C83DF, "tlbi vmalls12e1is", Tlbi(all=False, broadcast=True)),
        (0xD50C81DF, "tlbi vmalls12e1os", Tlbi(all=False, broadcast=True)),
        (0xD50C879F, "tlbi alle1", Tlbi(all=True, broadcast=False)),
        (0xD50C839F, "tlbi alle1is", Tlbi(all=True, broadcast=True)),
        (0xD508871F, "tlbi vmalle1", None),
        (0xD50C871F, "tlbi alle2", None),
        (0xD50C8020, "tlbi ipas2e1is, x0", None),
    ],
)
def test_tlbis_of_all_stage_2_translations(word: int, text: str, found: Tlbi | None) -> None:
    assert disassembled(word) == text
    assert tlbi(word) == found
    site = decode(word, TEXT)
    assert (site.role if site else None) is (Role.TLBI if found else None)


def test_barriers_are_found_apart(tmp_path: Path) -> None:
    code = "dsb sy\n isb\n dsb ish\n dsb ishst\n dmb sy\n nop\n dsb nsh\n dsb osh\n"
    elf, sites = sites_of(tmp_path, f"{KERNEL}f:\n{code}")
    at = elf.address("f")
    assert {a - at: site.role for a, site in sites.barriers.items() if a >= at} == {
        0: Role.DSB, 4: Role.ISB, 8: Role.DSB, 24: Role.DSB, 28: Role.DSB,
    }  # fmt: skip
    assert not sites.barriers.keys() & sites.by_address.keys()


def test_barriers_that_alternatives_put_in(tmp_path: Path) -> None:
    elf, sites = sites_of(tmp_path, KERNEL + alternative("dsb sy"))
    assert {elf.name_of(a): site.role for a, site in sites.barriers.items()}["patched"] is Role.DSB


@pytest.mark.parametrize("rt", [0, 7, 30])
def test_code_that_gives_a_pe_a_buffer(rt: int) -> None:
    word = struct.pack("<I", 0xD51C_2340 | rt)  # msr S3_4_C2_C3_2, x<rt>
    assert sets_buffer(bytes(8) + word + bytes(4))
    assert not sets_buffer(bytes(2) + word + bytes(2))


@pytest.mark.parametrize(
    "word",
    [
        0xD51C_235F,  # msr HDBSSBR_EL2, xzr
        0xD53C_2340,  # mrs x0, HDBSSBR_EL2
        0xD51C_2360,  # msr HDBSSPROD_EL2, x0
        0x001C_2340,  # the number of HDBSSBR_EL2 in a table
    ],
)
def test_other_code_gives_none(word: int) -> None:
    assert not sets_buffer(struct.pack("<I", word) * 3)
