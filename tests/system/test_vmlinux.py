# SPDX-License-Identifier: GPL-2.0-or-later
"""The default kernel's vmlinux: all sites of the series are found, and a disassembler agrees."""

import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import capstone
import pytest

from qemu_model.arch.registers import SysReg
from qemu_model.runner import Bench
from qemu_model.vmlinux.elf import Vmlinux
from qemu_model.vmlinux.sites import Role, Sites, decode, find_sites

MRS_MSR = 0xFFD0_0000, 0xD510_0000
"""Mask and value: MRS and MSR (register), whatever the register."""


@cache
def read(path: Path) -> tuple[Vmlinux, Sites]:
    elf = Vmlinux(path)
    return elf, find_sites(elf)


@pytest.fixture
def elf(prepared: Bench) -> Vmlinux:
    assert prepared.kernel.vmlinux is not None
    return read(prepared.kernel.vmlinux)[0]


@pytest.fixture
def sites(elf: Vmlinux) -> Sites:
    return read(elf.path)[1]


def functions(elf: Vmlinux, sites: Sites, role: Role, register: SysReg | None = None) -> set[str]:
    """The functions with a site of that role; parts that the compiler split off count in."""
    return {
        elf.name_of(address).partition("+")[0].partition(".")[0]
        for address in sites.of(role)
        if register is None or sites.by_address[address].register == register
    }


@pytest.mark.parametrize(
    ("role", "register", "where"),
    [
        (Role.MRS, SysReg.HDBSSPROD_EL2, {"hdbss_drain"}),
        (Role.MSR, SysReg.HDBSSPROD_EL2,
         {"hdbss_drain", "hdbss_unload", "kvm_vcpu_hdbss_load"}),
        (Role.MSR, SysReg.HDBSSBR_EL2, {"hdbss_unload", "kvm_vcpu_hdbss_load"}),
        (Role.MSR, SysReg.VTCR_EL2,
         {"kvm_vcpu_load_vhe", "hdbss_unload", "hdbss_switch_local", "enter_vmid_context"}),
        (Role.MRS, SysReg.ID_AA64MMFR1_EL1, {"check_local_cpu_capabilities"}),
        (Role.MRS_ESR, None, {"__kvm_vcpu_run", "__guest_exit", "el1_sync"}),
        (Role.ERET, None, {"__guest_enter"}),
        (Role.SMC, None, {"__arm_smccc_smc"}),
        (Role.VECTOR, None, {"__kvm_hyp_vector", "__bp_harden_hyp_vecs"}),
    ],
)  # fmt: skip
def test_the_sites_of_the_series(
    elf: Vmlinux, sites: Sites, role: Role, register: SysReg | None, where: set[str]
) -> None:
    assert where <= functions(elf, sites, role, register)


def test_only_the_known_code_touches_the_buffer(elf: Vmlinux, sites: Sites) -> None:
    users = {"hdbss_drain", "hdbss_unload", "kvm_vcpu_hdbss_load"}
    for register in (SysReg.HDBSSBR_EL2, SysReg.HDBSSPROD_EL2):
        for role in (Role.MRS, Role.MSR):
            assert functions(elf, sites, role, register) <= users


def test_nothing_of_nvhe_is_a_site(elf: Vmlinux, sites: Sites) -> None:
    assert not [a for a in sites.by_address if elf.name_of(a).startswith("__kvm_nvhe_")]
    assert any(name.startswith("__kvm_nvhe_") for name in elf.symbols)


def test_the_files_of_one_build_belong_together(prepared: Bench, elf: Vmlinux) -> None:
    elf.require_image(prepared.kernel.image)


def accesses(elf: Vmlinux) -> Iterator[tuple[int, int]]:
    """Every MRS and MSR in the kernel's code: address and word."""
    mask, value = MRS_MSR
    for code in elf.code():
        words = array("I")
        words.frombytes(code.data[: len(code.data) & ~3])
        for index, word in enumerate(words):
            if word & mask == value or word & mask == value | 1 << 21:
                yield code.address + 4 * index, word


def test_the_disassembler_sees_the_same_registers(elf: Vmlinux, sites: Sites) -> None:
    engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
    engine.detail = True
    seen: Counter[Role | None] = Counter()
    for address, word in accesses(elf):
        (found,) = engine.disasm(struct.pack("<I", word), address)
        if found.mnemonic not in ("mrs", "msr"):
            continue
        system, general = found.operands if found.mnemonic == "msr" else found.operands[::-1]
        # Capstone numbers registers by op0:op1:CRn:CRm:op2, as sys_reg() does five bits higher.
        register, name = system.reg << 5, found.reg_name(general.reg)
        rt = 31 if name == "xzr" else 30 if name == "lr" else 29 if name == "fp" else int(name[1:])
        base = 0xD520_0000 if found.mnemonic == "mrs" else 0xD500_0000
        assert word == base | register | rt, f"{elf.name_of(address)}: {found}"
        ours = decode(word, address)
        seen[ours.role if ours else None] += 1
        if ours is not None:
            assert (ours.register, ours.rt) == (register, rt)
            assert (ours.role is Role.MSR) == (found.mnemonic == "msr")
            unused = elf.name_of(address).startswith("__kvm_nvhe_")
            assert unused or sites.by_address[address] == ours
    assert seen[None] > 500 and seen[Role.MRS] > 5 and seen[Role.MSR] > 10
    assert seen[Role.MRS_ESR] > 10
